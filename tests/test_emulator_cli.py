"""The emulator from the command line: prepared by the doctor, used by `profile`; and its page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from phoneward.apps.bench.emulated_page import Results, Row, render
from phoneward.bundle import Bundle
from phoneward.profiles.report.file import read_report
from tests.qemu_emulator import needs_emulator, own_cache


def phoneward(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "phoneward", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@needs_emulator
def test_the_doctor_finds_it_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # nothing is downloaded a second time
    folder = own_cache(tmp_path / "cache")
    done = phoneward("doctor", "--emulator", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert Path(told["path"]).parent == folder
    assert {"ai-edge-litert", "executorch"} <= set(told["tools"])


@needs_emulator
def test_the_doctor_fails_in_one_line_without_the_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    done = phoneward("doctor", "--emulator", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"].startswith("qemu: could not download ai-edge-litert==")
    assert len(done.stderr.splitlines()) == 1


@needs_emulator
def test_profile_writes_an_emulated_report(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path / "cache"))
    own_cache(tmp_path / "cache")
    where = ["--on", "qemu:cortex-a53", "--format", "tflite", "--runs", "1"]
    done = phoneward("profile", str(bundle.path), *where, "-o", "report.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "report.json")
    assert (report.provenance.value, report.place) == ("emulated", "qemu:cortex-a53")
    assert [stage.format for stage in report.stages] == ["tflite"]


@needs_emulator
def test_profile_says_in_one_line_that_it_is_not_prepared(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path / "cache"))
    where = ["--on", "qemu:cortex-a53", "-o", "report.json"]
    done = phoneward("profile", str(bundle.path), *where, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: qemu:cortex-a53: the emulator is not prepared; run: phoneward doctor --emulator"
    )
    assert not (tmp_path / "report.json").exists()


def test_the_page_holds_counts_against_the_arithmetic() -> None:
    def row(precision: str, instructions: int, **by_class: int) -> Row:
        return Row(
            core="cortex-a76",
            engine="litert",
            precision=precision,
            instructions=instructions,
            identical=precision == "fp32",
            by_class=by_class,
            relative_error=1e-3,
        )

    rows = (
        row("fp32", 40_000_000, fmla=25_000_000, vector_load=4_000_000, vector_store=1_000_000),
        row("int8", 10_000_000, sdot=6_000_000, mla=200_000),
    )
    results = Results(command="do it", model="m", macs=100_000_000, tools={}, rows=rows)
    found = [line for line in render(results).splitlines() if "| litert" in line]
    assert found == [
        "| litert | fp32 | 40.0 | 1.00 | 25.0 |  |  |  |  |  | 5.0 | 10.0 | 100% | 1.0e-03 | yes |",
        "| litert | int8 | 10.0 | 0.25 |  |  | 6.0 |  | 0.2 |  |  | 3.8 | 96% | 1.0e-03 | no |",
    ]

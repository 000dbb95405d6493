"""`phoneward export --target-ms` with the latency model that ships."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from phoneward.bundle import Bundle

RANDOM = ("--weights", "random")


def export(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "phoneward", "export", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.matrix
def test_a_target_that_is_met_is_exported_in_one_form(tmp_path: Path) -> None:
    ask = ("mobilenetv3_small_100", *RANDOM, "--device", "pixel-8", "--format", "executorch")
    result = export(*ask, "--target-ms", 500, "--json", "-o", "small", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    target = json.loads(result.stdout)["target"]
    assert target["feasible"] is True
    assert target["chosen"]["provenance"] == "predicted"
    low, high = target["chosen"]["interval_ms"]
    assert low <= target["chosen"]["latency_ms"] <= high
    (artifact,) = Bundle.open(tmp_path / "small").manifest.artifacts
    assert artifact.format == target["chosen"]["format"] == "executorch"
    assert str(artifact.precision) == target["chosen"]["precision"]


def test_a_plan_names_the_choice_and_writes_nothing(tmp_path: Path) -> None:
    ask = ("mobilenetv3_small_100", *RANDOM, "--device", "iphone-12", "--any-variant")
    result = export(*ask, "--target-ms", 1000, "--dry-run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Target: 1000 ms a frame on iphone-12" in result.stdout
    assert "as coreml-fp16: " in result.stdout
    assert "(predicted; 90% between" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_infeasible_target_has_exit_code_3_and_names_what_is_closest(tmp_path: Path) -> None:
    ask = ("mobilenetv3_large_100", *RANDOM, "--device", "iphone-12", "--target-ms", 1e-3)
    result = export(*ask, cwd=tmp_path)
    assert result.returncode == 3
    assert "classify alone takes" in result.stderr
    assert result.stdout == ""
    result = export(*ask, "--json", "--dry-run", cwd=tmp_path)
    assert result.returncode == 3
    document = json.loads(result.stdout)
    assert document["target"]["feasible"] is False
    assert document["target"]["stage"] == "classify"
    assert document["target"]["closest"]["feasible"] is False
    assert document["error"] in result.stderr or document["error"].startswith("no choice of")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.matrix
def test_a_tracker_is_cut_down_until_it_fits(tmp_path: Path) -> None:
    ask = ("efficienttam_ti_512x512", *RANDOM, "--device", "iphone-15-pro", "--dry-run", "--json")
    whole = json.loads(export(*ask, "--target-ms", 1e6, cwd=tmp_path).stdout)["target"]["chosen"]
    assert list(whole["stages_ms"]) == ["encode", "propagate", "memorize"]
    assert whole["knobs"]["memory_slots"] is None
    tight = 0.9 * whole["latency_ms"]
    cut = json.loads(export(*ask, "--target-ms", tight, cwd=tmp_path).stdout)["target"]
    assert cut["chosen"]["latency_ms"] <= tight
    assert cut["chosen"]["knobs"] != whole["knobs"]
    assert cut["passed_over"][-1]["latency_ms"] > tight


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target-ms", "5"), "give --device once"),
        (("--target-ms", "5", "--device", "iphone-12", "--device", "pixel-8"), "one device's"),
        (("--any-variant", "--device", "iphone-12"), "give --target-ms"),
        (("--target-ms", "-1", "--device", "iphone-12"), "above 0 ms"),
        (("--target-ms", "5", "--device", "iphone-1"), "unknown device"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = export("mobilenetv3_small_100", *RANDOM, *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []

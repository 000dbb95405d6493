"""Verdicts are given where they are proven, and gates fail on these alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from phoneward.apps.cli.compare import parse_share
from phoneward.errors import InvalidSpec
from phoneward.profiles.report.compare import compare, regressions
from phoneward.profiles.report.file import write_report
from phoneward.profiles.report.schema import Emulated, LatencyReport
from tests import reports


def of(median_ms: float, seed: int, **changes: Any) -> LatencyReport:
    return reports.report(reports.stage(result=reports.measured(median_ms, seed, **changes)))


def cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "phoneward", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A report, another of the same program, and one of a program that takes half more."""
    paths = (tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.json")
    for path, report in zip(paths, (of(20, 1), of(20, 2), of(30, 3)), strict=True):
        write_report(report, path)
    return paths


@pytest.mark.parametrize(
    ("after", "word"), [(20.0, "no difference"), (24.0, "slower"), (16.0, "faster")]
)
def test_measurements_are_compared_by_the_interval_of_their_ratio(after: float, word: str) -> None:
    (pair,) = compare(of(20, 1), of(after, 2)).pairs
    verdict = pair.verdict
    assert verdict.word == word
    assert verdict.ratio == pytest.approx(after / 20, rel=0.02)
    assert verdict.interval is not None
    assert verdict.interval[0] < (verdict.ratio or 0) < verdict.interval[1]
    names = [figure.name for figure in pair.figures]
    assert names == ["p50", "p90", "p99", "cold load", "warm load", "first", "peak memory"]


def test_a_regression_is_proven_by_the_lower_end() -> None:
    comparison = compare(of(20, 1), of(24, 2))
    (pair,) = comparison.pairs
    low = (pair.verdict.interval or (0, 0))[0]
    assert 1.1 < low < 1.2
    assert regressions(comparison, low - 1.001) == (pair,)
    assert regressions(comparison, low - 0.999) == ()
    assert regressions(compare(of(24, 2), of(20, 1)), 0) == ()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"samples_ns": reports.samples(30, 5), "process_samples": ()}, "too few samples: 5"),
        ({"samples_ns": reports.samples(30), "process_samples": ()}, "a single process"),
    ],
)
def test_little_evidence_is_told(changes: dict[str, Any], told: str) -> None:
    (pair,) = compare(of(20, 1), of(30, 2, median_interval_ns=None, **changes)).pairs
    assert told in (pair.verdict.why or "")
    assert pair.verdict.ratio == pytest.approx(1.5, rel=0.05)
    assert (pair.verdict.proven is None) == ("few" in told)


def test_tools_that_hide_their_samples_are_compared_by_their_means() -> None:
    hidden: dict[str, Any] = {"samples_ns": (), "process_samples": (), "median_interval_ns": None}
    sides = [of(20, 1, aggregate=reports.aggregate(mean), **hidden) for mean in (20, 20.05, 24)]
    assert compare(sides[0], sides[1]).pairs[0].verdict.word == "no difference"
    assert compare(sides[0], sides[2]).pairs[0].verdict.word == "slower"
    assert compare(sides[0], of(20, 1)).pairs[0].verdict.word == "not comparable"


def test_emulated_counts_are_exact() -> None:
    one = reports.emulated_report()
    stage = one.stages[0]
    assert isinstance(stage.result, Emulated)
    more = stage.result.model_copy(update={"instructions": stage.result.instructions + 1})
    other = one.model_copy(update={"stages": (stage.model_copy(update={"result": more}),)})
    assert compare(one, one).pairs[0].verdict.word == "no difference"
    (pair,) = compare(one, other).pairs
    assert (pair.verdict.word, pair.verdict.interval) == ("more", None)
    assert regressions(compare(one, other), 0) == (pair,)
    assert regressions(compare(one, other), 0.01) == ()
    moved = more.model_copy(update={"cpu": "cortex-a53"})
    third = one.model_copy(update={"stages": (stage.model_copy(update={"result": moved}),)})
    assert compare(one, third).pairs[0].verdict.word == "not comparable"


def test_predictions_whose_intervals_overlap_decide_nothing() -> None:
    one = reports.predicted_report(20)
    assert compare(one, reports.predicted_report(22)).pairs[0].verdict.word == "not decided"
    assert compare(one, reports.predicted_report(60)).pairs[0].verdict.word == "slower"
    assert compare(one, one).pairs[0].verdict.word == "no difference"


def test_measured_and_predicted_are_shown_and_never_divided() -> None:
    comparison = compare(of(20, 1), reports.predicted_report(40))
    (pair,) = comparison.pairs
    assert (pair.verdict.word, pair.verdict.ratio) == ("not comparable", None)
    assert [one.before for one in pair.figures if one.name == "predicted"] == [None]
    assert any("shown side by side, not compared" in one for one in comparison.warnings)
    assert regressions(comparison, 0) == ()


def test_what_is_not_alike_is_told() -> None:
    old = of(20, 1)
    stage = old.stages[0].model_copy(
        update={"artifact_sha256": "cd" * 32, "engine_version": "2.4.0", "pinned_cores": (1,)}
    )
    machine = old.machine.model_copy(update={"name": "another", "cpu": None})
    new = old.model_copy(update={"stages": (stage,), "machine": machine})
    told = "\n".join(compare(old, new).warnings)
    for part in (
        "different machines: Raspberry Pi 5 Model B and another",
        "different processors: Cortex-A76 and not told",
        "different artifacts",
        "different engine versions: 2.3.0 and 2.4.0",
        "different pinned cores",
    ):
        assert part in told


def test_other_threads_are_another_stage() -> None:
    old = of(20, 1)
    stage = old.stages[0].model_copy(update={"threads": 4})
    comparison = compare(old, old.model_copy(update={"stages": (stage,)}))
    assert not comparison.pairs
    assert "different threads, not compared: 2 and 4" in comparison.warnings[0]


@pytest.mark.parametrize(
    ("text", "share"), [("5%", 0.05), (" 5 %", 0.05), ("0.05", 0.05), ("0", 0), ("120%", 1.2)]
)
def test_shares_are_read(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "5", "-5%", "5%%", "nan", "inf", "five", "5% 1"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(InvalidSpec, match="--fail-on-regression"):
        parse_share(text)


def test_the_gate_fails_on_what_is_proven(files: tuple[Path, Path, Path]) -> None:
    first, same, slow = files
    passed = cli("compare", first, same, "--fail-on-regression", "5%")
    assert passed.returncode == 0, passed.stderr
    assert "no difference" in passed.stdout
    assert "1 of 1 gated: no regression above 5.0% proven." in passed.stdout
    failed = cli("compare", first, slow, "--fail-on-regression", "0.05", "--json")
    assert failed.returncode == 1
    assert "error: encode tflite-fp32 litert: slower by more than" in failed.stderr
    document = json.loads(failed.stdout)
    assert document["regressions"] == ["encode tflite-fp32 litert"]
    assert document["pairs"][0]["provenance"] == ["measured", "measured"]
    assert cli("compare", first, slow).returncode == 0


def test_what_cannot_be_compared_is_an_error(
    files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    first, *_ = files
    odd = tmp_path / "odd.json"
    write_report(reports.report(reports.stage("other")), odd)
    found = cli("compare", first, odd)
    assert found.returncode == 2
    assert "no stage in common" in found.stderr
    odd.write_text("{}")
    found = cli("compare", first, odd, "--json")
    assert found.returncode == 2
    assert json.loads(found.stdout)["error"].startswith(f"{odd}: ")
    assert "Traceback" not in found.stderr


def test_reports_are_written_whole_and_never_over_others(
    files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    first, second, _ = files
    page = tmp_path / "out" / "page.html"
    assert cli("report", first, "-o", page).returncode == 2
    page = tmp_path / "page.html"
    made = cli("report", first, second, "-o", page)
    assert made.returncode == 0, made.stderr
    before = page.read_text(encoding="utf-8")
    assert before.startswith("<!doctype html>")
    again = cli("report", first, "-o", page)
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert page.read_text(encoding="utf-8") == before
    assert cli("report", first, "-o", page, "--force").returncode == 0
    assert cli("report", first, "-o", first, "--force").returncode == 2
    assert cli("report", first, "-o", tmp_path / "page.pdf").returncode == 2
    shown = cli("report", first, second)
    assert shown.stdout.startswith("# Latency of")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("a.json", "b.json", "c.json"),
        "page.html",
    ]

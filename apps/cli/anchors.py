"""Measurements to calibrate on, from a folder of latency reports or from a table."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from phoneward.errors import PhonewardError, PredictionError, ReportError

if TYPE_CHECKING:
    from phoneward.profiles.kernels import StageKernels
    from phoneward.profiles.predict.calibrate import Anchor
    from phoneward.profiles.report.schema import LatencyReport, Measured, StageReport

REQUIRED = ("model", "latency_ms", "runtime", "precision")
OPTIONAL = ("unit",)
LEAST = 3
"""Anchors that a calibration needs at least: fewer tell no device from a slow moment."""


def read_anchors(source: Path) -> list[Anchor]:
    """Read measurements.

    Args:
        source: a folder of latency reports (`*.json`), one report, or a CSV file with the columns
            REQUIRED and, if wanted, OPTIONAL.

    Raises:
        PredictionError: the source is missing, or has too few, or a time that is none; names the
            file and the line.
        ReportError: a report is damaged, or not measured.
        UnknownName: a model's name is none.
    """
    if source.is_dir():
        files = sorted(source.glob("*.json"))
        anchors = [anchor for file in files for anchor in _of_report(file)]
    elif source.suffix == ".json":
        anchors = list(_of_report(source))
    else:
        anchors = list(_of_table(source))
    if len(anchors) < LEAST:
        raise PredictionError(
            f"{source} has {len(anchors)} measurements; a calibration needs at least {LEAST}, "
            "better five to ten of different models"
        )
    return anchors


def _of_report(file: Path) -> Iterator[Anchor]:
    from phoneward.profiles.report.file import read_report

    report = read_report(file)
    if report.provenance.value != "measured":
        raise ReportError(file, f"is {report.provenance}: only what was measured calibrates")
    for stage in report.stages:
        yield _of_stage(file, report, stage)


def _of_stage(file: Path, report: LatencyReport, stage: StageReport) -> Anchor:
    from phoneward.profiles.kernels import StageKernels
    from phoneward.profiles.predict.calibrate import Anchor
    from phoneward.profiles.report.schema import Measured

    runtime = stage.format or stage.engine
    if runtime is None or stage.precision is None:
        raise ReportError(file, f"stage '{stage.stage}' does not say its format and precision")
    if not isinstance(stage.result, Measured):
        raise ReportError(file, f"stage '{stage.stage}' was not measured")
    graph = StageKernels(stage=stage.stage, kernels=stage.kernels)
    if not stage.kernels:
        graph = _named(file, report.subject.model, stage.stage)
    return Anchor(
        kernels=graph,
        latency_ms=_median_ms(stage.result),
        runtime=runtime,
        unit=stage.unit,
        precision=stage.precision,
        label=f"{report.subject.model}/{stage.stage}",
    )


def _median_ms(result: Measured) -> float:
    if result.samples_ns:
        return statistics.median(result.samples_ns) / 1e6
    told = result.aggregate
    return ((told.median_ns or told.mean_ns) if told else 0.0) / 1e6


def _named(file: Path, model: str, stage: str) -> StageKernels:
    from phoneward.apps.cli.graphs import graphs_of

    try:
        stages = graphs_of(model).stages
    except PhonewardError as error:
        raise ReportError(file, f"stage '{stage}' has no kernels, and {error}") from error
    found = [one for one in stages if one.stage == stage]
    if not found:
        names = ", ".join(one.stage for one in stages)
        raise ReportError(file, f"{model} has no stage '{stage}', only: {names}")
    return found[0]


def _of_table(file: Path) -> Iterator[Anchor]:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            reader = csv.DictReader(opened, skipinitialspace=True)
            _check_columns(file, reader.fieldnames or ())
            for row in reader:
                yield _of_row(f"{file}, line {reader.line_num}", row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PredictionError(f"{file}: cannot be read as a table: {error}") from error


def _check_columns(file: Path, found: object) -> None:
    columns = [str(name) for name in found] if isinstance(found, (list, tuple)) else []
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        hint = " (a time carries its unit in its name)" if "latency_ms" in missing else ""
        raise PredictionError(f"{file}: no column {', '.join(missing)}{hint}")
    unknown = [name for name in columns if name not in (*REQUIRED, *OPTIONAL)]
    if unknown:
        allowed = ", ".join((*REQUIRED, *OPTIONAL))
        raise PredictionError(f"{file}: unknown column {', '.join(unknown)}: known are {allowed}")


def _of_row(where: str, row: dict[str, str | None]) -> Anchor:
    from phoneward.apps.cli.graphs import graphs_of
    from phoneward.profiles.predict.calibrate import Anchor
    from phoneward.profiles.predict.group import numeric_of
    from phoneward.profiles.predict.targets import runtime_of, unit_of

    empty = [name for name in REQUIRED if not (row.get(name) or "").strip()]
    if empty:
        raise PredictionError(f"{where}: no {', '.join(empty)}")
    values = {str(name): (value or "").strip() for name, value in row.items() if name}
    try:
        runtime_of(values["runtime"])
        numeric_of(values["precision"])
        unit_of(values.get("unit") or None, runtime_of(values["runtime"]), ())
        stages = graphs_of(values["model"], runtime_of(values["runtime"]), values["precision"])
    except PredictionError as error:
        raise PredictionError(f"{where}: {error}") from error
    if len(stages.stages) > 1:
        raise PredictionError(f"{where}: {values['model']} has several stages: use reports")
    return Anchor(
        kernels=stages.stages[0],
        latency_ms=_time(where, values["latency_ms"]),
        runtime=values["runtime"],
        unit=values.get("unit") or None,
        precision=values["precision"],
        label=values["model"],
    )


def _time(where: str, text: str) -> float:
    try:
        time = float(text)
    except ValueError:
        raise PredictionError(f"{where}: latency_ms '{text}' is no number") from None
    if not math.isfinite(time) or time <= 0:
        raise PredictionError(f"{where}: latency_ms {text} is no positive time")
    return time

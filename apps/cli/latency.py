"""A latency report as tables for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from phoneward.apps.cli.output import print_table
from phoneward.profiles.report.schema import Emulated, Measured, Predicted

if TYPE_CHECKING:
    from phoneward.profiles.report.schema import LatencyReport, OpTime, StageReport

_COLUMNS: tuple[str, ...] = (
    "stage",
    "engine",
    "precision",
    "cold load",
    "warm load",
    "first",
    "p50",
    "p90",
    "p99",
)
_COLUMNS += ("peak memory", "provenance")
_COUNTED = ("stage", "engine", "precision", "instructions", "provenance")
_TOP = 8


def print_report(report: LatencyReport) -> None:
    """Print a line for each stage, the slowest ops, and the warnings."""
    machine = report.machine
    every = (*report.stages, *([report.end_to_end] if report.end_to_end else ()))
    title = f"{report.subject.model} on {machine.name}"
    timed = [_row(stage, stage.result) for stage in every if not isinstance(stage.result, Emulated)]
    if timed:
        print_table(f"{title}, ms", _COLUMNS, timed)
    # counts are no times: they never stand under the heads of milliseconds
    counted = [
        _counts(stage, stage.result) for stage in every if isinstance(stage.result, Emulated)
    ]
    if counted:
        print_table(f"{title}, instructions", _COUNTED, counted)
    for stage in every:
        if isinstance(stage.result, Measured) and stage.result.ops:
            _print_ops(stage, stage.result.ops)
    for stage in report.stages:
        if isinstance(stage.result, Measured) and stage.result.sustained:
            windows = stage.result.sustained
            print(
                f"{_name(stage)}: sustained, p50 {_ms(windows[0].p50_ns)} ms in the first window, "
                f"{_ms(windows[-1].p50_ns)} ms in the last of {len(windows)} (measured)"
            )
    for warning in report.warnings:
        print(f"warning: {warning}")


def _row(stage: StageReport, result: Measured | Predicted) -> tuple[str, ...]:
    head = (stage.stage, stage.engine or "", str(stage.precision or ""))
    return (*head, *_figures(result), result.provenance)


def _counts(stage: StageReport, result: Emulated) -> tuple[str, ...]:
    head = (stage.stage, stage.engine or "", str(stage.precision or ""))
    return (*head, f"{result.instructions:,}", result.provenance)


def _figures(result: Measured | Predicted) -> tuple[str, ...]:
    if isinstance(result, Predicted):
        low, high = result.interval_ms
        return ("", "", "", f"{result.latency_ms:.3g} [{low:.3g}, {high:.3g}]", "", "", "")
    memory = f"{result.memory.peak_bytes / 1e6:.0f} MB" if result.memory else ""
    loads = (_median(result.cold_load_ns), _median(result.warm_load_ns))
    first = _ms(result.first_ns) if result.first_ns else ""
    return (*loads, first, *_percentiles(result), memory)


def _percentiles(result: Measured) -> tuple[str, ...]:
    if not result.samples_ns:
        told = result.aggregate
        return ("" if told is None else f"mean {_ms(told.mean_ns)}", "", "")
    p50, p90, p99 = (_ms(value) for value in np.percentile(result.samples_ns, (50, 90, 99)))
    if result.median_interval_ns is not None:
        low, high = result.median_interval_ns
        p50 = f"{p50} [{_ms(low)}, {_ms(high)}]"
    return p50, p90, p99


def _print_ops(stage: StageReport, ops: tuple[OpTime, ...]) -> None:
    total = sum(op.median_ns for op in ops) or 1
    slowest = sorted(ops, key=lambda op: -op.median_ns)[:_TOP]
    rows = [
        (op.name, op.kind, op.module or "", op.unit or "", _ms(op.median_ns), _share(op, total))
        for op in slowest
    ]
    shown = f"{len(slowest)} slowest of {len(ops)} ops" if len(ops) > _TOP else "ops"
    if ops[0].kind == "stage":
        shown = "stages inside the loop"
    columns = ("op", "kind", "module", "unit", "ms", "share")
    print_table(f"{_name(stage)}: {shown} (measured)", columns, rows)


def _share(op: OpTime, total: int) -> str:
    return f"{op.median_ns / total:.1%}"


def _name(stage: StageReport) -> str:
    return " ".join(_words(stage))


def _words(stage: StageReport) -> Iterator[str]:
    yield stage.stage
    for value in (stage.engine, stage.precision):
        if value is not None:
            yield str(value)


def _median(values: tuple[int, ...]) -> str:
    return _ms(float(np.median(values))) if values else ""


def _ms(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e6:.3g}" if nanoseconds < 1e9 else f"{nanoseconds / 1e6:.0f}"

"""Single figures of a result, each with its name and unit: what tables and comparisons show."""

from __future__ import annotations

from dataclasses import dataclass

from phoneward.profiles.report.schema import (
    Emulated,
    LatencyReport,
    Measured,
    Predicted,
    StageReport,
)
from phoneward.profiles.report.statistics import percentile

Result = Measured | Emulated | Predicted


@dataclass(frozen=True)
class Value:
    """A figure; `unit` is empty for plain counts."""

    name: str
    value: float
    unit: str


def stages_of(report: LatencyReport) -> tuple[StageReport, ...]:
    """Return the stages, and at the end the whole frame where the report has it."""
    return (*report.stages, *((report.end_to_end,) if report.end_to_end else ()))


def title_of(stage: StageReport) -> str:
    """Name a stage with its format, precision and engine."""
    kind = "-".join(str(part) for part in (stage.format, stage.precision) if part is not None)
    return " ".join(part for part in (stage.stage, kind, stage.engine) if part)


def processes_of(measured: Measured) -> tuple[tuple[int, ...], ...]:
    """Return the samples of each process; of one, where the report does not tell them apart."""
    if not measured.process_samples:
        return (measured.samples_ns,)
    found, start = [], 0
    for count in measured.process_samples:
        found.append(measured.samples_ns[start : start + count])
        start += count
    return tuple(found)


def central(result: Result) -> Value:
    """Return the one figure that stands for a result.

    Of samples the median, of an aggregate its median or else its mean, of emulation the
    instructions, of a prediction its time.
    """
    if isinstance(result, Predicted):
        return Value("predicted", result.latency_ms, "ms")
    if isinstance(result, Emulated):
        return Value("instructions", float(result.instructions), "")
    if result.aggregate is None:
        return Value("p50", percentile(result.samples_ns, 50) / 1e6, "ms")
    if result.aggregate.median_ns is not None:
        return Value("p50", result.aggregate.median_ns / 1e6, "ms")
    return Value("mean", result.aggregate.mean_ns / 1e6, "ms")


def others(result: Result) -> tuple[Value, ...]:
    """Return the further figures that two results of one kind can be compared by."""
    if isinstance(result, Predicted):
        return ()
    if isinstance(result, Emulated):
        return tuple(Value(name, count, "") for name, count in sorted(result.by_class.items()))
    found = []
    if result.samples_ns:
        found += [
            Value(f"p{percent}", percentile(result.samples_ns, percent) / 1e6, "ms")
            for percent in (90, 99)
        ]
    for name, loads in (("cold load", result.cold_load_ns), ("warm load", result.warm_load_ns)):
        if loads:
            found.append(Value(name, percentile(loads, 50) / 1e6, "ms"))
    if result.first_ns is not None:
        found.append(Value("first", result.first_ns / 1e6, "ms"))
    if result.memory is not None:
        found.append(Value("peak memory", result.memory.peak_bytes / 1e6, "MB"))
    return tuple(found)

"""What a page shows, worked out of the reports: one entry a stage of a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from phoneward.profiles.report.figures import central, others, stages_of
from phoneward.profiles.report.page.formats import count, megabytes, ms, number
from phoneward.profiles.report.schema import (
    Emulated,
    LatencyReport,
    Machine,
    Measured,
    OpTime,
    Predicted,
    StageReport,
)

MOST_OPS = 40


@dataclass(frozen=True)
class Entry:
    """A stage of a report; `name` is unique on the page."""

    name: str
    report: LatencyReport
    stage: StageReport

    @property
    def provenance(self) -> str:
        """How its figures are known."""
        return self.stage.result.provenance

    @property
    def measured(self) -> Measured | None:
        """The result, if a clock gave it."""
        result = self.stage.result
        return result if isinstance(result, Measured) else None

    @property
    def predicted(self) -> Predicted | None:
        """The result, if it was computed."""
        result = self.stage.result
        return result if isinstance(result, Predicted) else None

    @property
    def emulated(self) -> Emulated | None:
        """The result, if an emulator counted it."""
        result = self.stage.result
        return result if isinstance(result, Emulated) else None

    @property
    def kind(self) -> str:
        """Format and precision."""
        parts = (self.stage.format, self.stage.precision)
        return " ".join(str(part) for part in parts if part is not None)

    @property
    def engine(self) -> str:
        """The engine, its version and its threads."""
        stage = self.stage
        threads = None
        if stage.threads is not None:
            threads = f"{stage.threads} thread" + ("s" if stage.threads > 1 else "")
        name = " ".join(part for part in (stage.engine, stage.engine_version) if part)
        return ", ".join(part for part in (name, stage.delegate, threads) if part)

    @property
    def machine(self) -> Machine:
        """Where."""
        return self.report.machine

    @property
    def figures(self) -> dict[str, str]:
        """Its figures by name, each with its unit."""
        result = self.stage.result
        found = {}
        for value in (central(result), *others(result)):
            text = count(value.value) if not value.unit else f"{number(value.value)} {value.unit}"
            found[value.name] = text
        return found

    @property
    def headline(self) -> str:
        """The one figure that stands for it, with its unit."""
        return next(iter(self.figures.values()))

    @property
    def interval(self) -> str:
        """The interval of the headline in ms, or nothing."""
        if self.predicted is not None:
            low, high = self.predicted.interval_ms
            return f"{number(low)} to {number(high)} ms"
        if self.measured is not None and self.measured.median_interval_ns is not None:
            ends = self.measured.median_interval_ns
            return f"{ms(ends[0])} to {ms(ends[1])} ms"
        return ""


@dataclass(frozen=True)
class Bar:
    """An entry's time on a scale that all bars share; lengths in percent of the width.

    `tail` is where p99, or the upper end of a prediction's interval, lies; `start` where the
    thin line towards it begins; `tick` is p90.
    """

    entry: Entry
    length: float
    start: float
    tail: float
    tick: float | None = None


@dataclass(frozen=True)
class OpRow:
    """An op and its share of all ops' time, and of the longest one's."""

    op: OpTime
    share: float
    length: float


def entries_of(reports: Iterable[LatencyReport]) -> tuple[Entry, ...]:
    """Return the entries of all reports, in order."""
    return tuple(
        Entry(f"r{index}s{number}", report, stage)
        for index, report in enumerate(reports)
        for number, stage in enumerate(stages_of(report))
    )


def bars_of(entries: Sequence[Entry]) -> dict[str, list[Bar]]:
    """Return the bars of all entries that have a time, by stage (and model, of several)."""
    several = len({entry.report.subject.model for entry in entries}) > 1
    timed = [entry for entry in entries if entry.emulated is None]
    times = {entry.name: _times(entry) for entry in timed}
    longest = max((time for values in times.values() for time in values), default=0.0) or 1.0
    groups: dict[str, list[Bar]] = {}
    for entry in timed:
        middle, start, end, *tick = (100 * time / longest for time in times[entry.name])
        bar = Bar(entry, middle, start, end, tick[0] if tick else None)
        model = f"{entry.report.subject.model}: " if several else ""
        groups.setdefault(model + entry.stage.stage, []).append(bar)
    return groups


def _times(entry: Entry) -> tuple[float, ...]:
    """The middle, both ends of the thin line and, of samples, p90; in ms."""
    middle = central(entry.stage.result).value
    if entry.predicted is not None:
        return (middle, *entry.predicted.interval_ms)
    known = {value.name: value.value for value in others(entry.stage.result)}
    if "p99" not in known:
        return (middle, middle, middle)
    return (middle, middle, known["p99"], known["p90"])


def ops_of(entry: Entry) -> tuple[tuple[OpRow, ...], int, float]:
    """Return the slowest ops, how many more there are, and these others' share of the time."""
    if entry.measured is None:
        return (), 0, 0.0
    ops = sorted(entry.measured.ops, key=lambda op: -op.median_ns)
    total = sum(op.median_ns for op in ops) or 1
    longest = max((op.median_ns for op in ops), default=0) or 1
    rows = tuple(
        OpRow(op, op.median_ns / total, 100 * op.median_ns / longest) for op in ops[:MOST_OPS]
    )
    rest = sum(op.median_ns for op in ops[MOST_OPS:]) / total
    return rows, max(0, len(ops) - MOST_OPS), rest


def memory_rows(entries: Iterable[Entry]) -> list[tuple[Entry, float, float, str]]:
    """Return entries with a peak: lengths of peak and before in percent, and a text."""
    known = [
        (entry, entry.measured.memory)
        for entry in entries
        if entry.measured is not None and entry.measured.memory is not None
    ]
    most = max((memory.peak_bytes for _, memory in known), default=1)
    rows = []
    for entry, memory in known:
        before = memory.before_bytes or 0
        text = memory.source
        if memory.before_bytes is not None:
            text = f"{megabytes(before)} before loading"
        rows.append((entry, 100 * memory.peak_bytes / most, 100 * before / most, text))
    return rows

"""What may be said of two results of one stage: the ratio, its interval, and the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from phoneward.profiles.report.figures import Result, central, processes_of
from phoneward.profiles.report.schema import Aggregate, Emulated, Measured, Predicted
from phoneward.profiles.report.statistics import FEWEST, ratio_interval

Word = Literal["faster", "slower", "less", "more", "no difference", "not decided", "not comparable"]
Ends = tuple[float, float]
# of a normal distribution, two-sided
_Z95 = 1.96


@dataclass(frozen=True)
class Verdict:
    """`ratio` is after over before; `interval` encloses it, None where it is exact or unknown.

    `why` says why a verdict could not be had, or what weakens it.
    """

    word: Word
    ratio: float | None = None
    interval: Ends | None = None
    why: str | None = None

    @property
    def proven(self) -> float | None:
        """The ratio that is exceeded for certain; None where nothing is decided."""
        if self.word in ("not decided", "not comparable") or self.ratio is None:
            return None
        return self.ratio if self.interval is None else self.interval[0]


def judge(before: Result, after: Result) -> Verdict:
    """Compare two results; those of different provenance never."""
    if isinstance(before, Measured) and isinstance(after, Measured):
        return _measured(before, after)
    if isinstance(before, Emulated) and isinstance(after, Emulated):
        return _emulated(before, after)
    if isinstance(before, Predicted) and isinstance(after, Predicted):
        return _predicted(before, after)
    return Verdict(
        "not comparable", why=f"{before.provenance} and {after.provenance} figures are not alike"
    )


def _measured(before: Measured, after: Measured) -> Verdict:
    first, last = central(before), central(after)
    if first.name != last.name:
        return Verdict("not comparable", why=f"a {first.name} and a {last.name} are not alike")
    ratio = last.value / first.value if first.value else None
    interval, why = _interval(before, after)
    if interval is None or ratio is None:
        return Verdict("not decided", ratio, why=why or "a time of zero")
    return Verdict(_word(interval, "faster", "slower"), ratio, interval, why)


def _interval(before: Measured, after: Measured) -> tuple[Ends | None, str | None]:
    if before.aggregate is not None or after.aggregate is not None:
        return _of_means(before.aggregate, after.aggregate)
    sides = processes_of(before), processes_of(after)
    found = ratio_interval(sides[1], sides[0])
    if found is None:
        fewest = min(len(before.samples_ns), len(after.samples_ns))
        return None, f"too few samples: {fewest}, at least {FEWEST} are needed"
    single = min(map(len, sides)) < 2
    why = "a single process: how much processes differ is not in the interval" if single else None
    return (found.low, found.high), why


def _of_means(before: Aggregate | None, after: Aggregate | None) -> tuple[Ends | None, str | None]:
    if before is None or after is None:
        return None, "one of them has no samples, but an aggregate"
    spread = 0.0
    for one in (before, after):
        if one.std_ns is None or one.median_ns is not None or one.count < FEWEST or not one.mean_ns:
            return None, "no samples, and the tool does not tell how they scatter around the figure"
        spread += (one.std_ns / one.mean_ns) ** 2 / one.count
    half = math.exp(_Z95 * math.sqrt(spread))
    ratio = after.mean_ns / before.mean_ns
    return (ratio / half, ratio * half), "of the tool's mean and deviation, as if independent"


def _emulated(before: Emulated, after: Emulated) -> Verdict:
    if before.cpu != after.cpu:
        why = f"different processors were emulated: {before.cpu} and {after.cpu}"
        return Verdict("not comparable", why=why)
    ratio = after.instructions / before.instructions
    if not (before.identical and after.identical):
        return Verdict("not decided", ratio, why="the counts differ from run to run")
    return Verdict(_word((ratio, ratio), "less", "more"), ratio)


def _predicted(before: Predicted, after: Predicted) -> Verdict:
    if before.latency_ms == after.latency_ms:
        return Verdict("no difference", 1.0 if before.latency_ms else None)
    if not before.interval_ms[0]:
        return Verdict("not decided", why="an interval that begins at zero")
    ratio = after.latency_ms / before.latency_ms
    interval = (
        after.interval_ms[0] / before.interval_ms[1],
        after.interval_ms[1] / before.interval_ms[0],
    )
    word = _word(interval, "faster", "slower")
    if word == "no difference":
        return Verdict("not decided", ratio, interval, "the intervals of the predictions overlap")
    return Verdict(word, ratio, interval)


def _word(interval: Ends, below: Word, above: Word) -> Word:
    if interval[0] <= 1 <= interval[1]:
        return "no difference"
    return below if interval[1] < 1 else above

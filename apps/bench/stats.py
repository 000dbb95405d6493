"""Figures from raw samples: medians, and ratios paired within rounds.

A machine that others use drifts by half within minutes. Two medians taken in the same round saw
nearly the same machine, so ratios are formed within rounds and then the middle one is quoted.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from phoneward.apps.bench.records import EAGER, Measurement, Subject

_NS_PER_MS = 1e6


@dataclass(frozen=True)
class Series:
    """The median of every round of one subject, in milliseconds, by round number."""

    medians: Mapping[int, float]

    @property
    def best(self) -> float:
        """The fastest round."""
        return min(self.medians.values())

    @property
    def typical(self) -> float:
        """The middle round."""
        return statistics.median(self.medians.values())


def series(measurements: Iterable[Measurement]) -> dict[Subject, Series]:
    """Collect per-round medians by subject."""
    medians: dict[Subject, dict[int, float]] = {}
    for m in measurements:
        median = statistics.median(m.timing.samples_ns) / _NS_PER_MS
        medians.setdefault(m.subject, {})[m.round] = median
    return {subject: Series(rounds) for subject, rounds in medians.items()}


def paired_ratio(numerator: Series, denominator: Series) -> float | None:
    """Median over common rounds of the ratio of medians; None without a common round."""
    common = numerator.medians.keys() & denominator.medians.keys()
    if not common:
        return None
    return statistics.median(numerator.medians[r] / denominator.medians[r] for r in common)


def fastest_naive(table: Mapping[Subject, Series], model: str) -> Subject | None:
    """The naive subject of a model with the lowest best time; eager PyTorch does not count."""
    naive = [
        subject
        for subject in table
        if subject.model == model and subject.variant == "naive" and subject.engine != EAGER
    ]
    return min(naive, key=lambda subject: table[subject].best, default=None)

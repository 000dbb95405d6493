"""Figures of EfficientTAM's benchmark: series by stage, and operations a second."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from phoneward.apps.bench.records import EAGER
from phoneward.apps.bench.stats import Series
from phoneward.apps.bench.tam_records import (
    FRAME,
    MATMUL,
    StageMeasurement,
    StageSubject,
    TamResults,
)
from phoneward.apps.bench.tam_worker import PRODUCTS
from phoneward.runtime.engines import format_of

TRACKED = "tracked frame"
Key = tuple[StageSubject, str]
Table = Mapping[Key, Series]

_NS_PER_MS = 1e6


def stage_series(measurements: Iterable[StageMeasurement]) -> dict[Key, Series]:
    """Medians of every round by subject and stage, and of whole frames as `TRACKED`."""
    medians: dict[Key, dict[int, float]] = {}
    for m in measurements:
        samples = dict(m.timing.samples_ns)
        if set(FRAME) <= set(samples):
            samples[TRACKED] = tuple(map(sum, zip(*(samples[name] for name in FRAME), strict=True)))
        for name, taken in samples.items():
            rounds = medians.setdefault((m.subject, name), {})
            rounds[m.round] = statistics.median(taken) / _NS_PER_MS
    return {key: Series(rounds) for key, rounds in medians.items()}


def operations(results: TamResults, subject: StageSubject, stage: str) -> int:
    """What one call of a stage, or of a frame's stages together, computes as it is run."""
    plain = subject.form == "plain" or subject.engine == EAGER
    format_name = None if plain else format_of(subject.engine)
    stages = FRAME if stage == TRACKED else (stage,)
    return sum(
        work.operations
        for work in results.work
        if (work.bank, work.format) == (subject.bank, format_name) and work.stage in stages
    )


def peaks(table: Table) -> dict[str, float]:
    """GFLOP/s of each matrix product: the fastest of the banks' middle rounds."""
    found: dict[str, float] = {}
    for (subject, name), series in table.items():
        if subject.engine == MATMUL:
            rows, inner, columns = PRODUCTS[name]
            rate = 2 * rows * inner * columns / 1e6 / series.typical
            found[name] = max(rate, found.get(name, 0.0))
    return found


def tracked(table: Table, bank: str) -> dict[StageSubject, Series]:
    """Whole frames of our artifacts with one bank, by subject."""
    return {
        subject: series
        for (subject, name), series in table.items()
        if name == TRACKED and (subject.bank, subject.form) == (bank, "rewritten")
    }

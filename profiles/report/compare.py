"""Two reports side by side: what differs, by how much, and whether that is proven.

Stages are paired by name, format, precision, engine and threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from phoneward.profiles.report.figures import Value, central, others, stages_of, title_of
from phoneward.profiles.report.schema import LatencyReport, StageReport
from phoneward.profiles.report.verdict import Verdict, judge


@dataclass(frozen=True)
class Figure:
    """One figure of a stage in both reports; None where one has it not."""

    name: str
    unit: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Pair:
    """One stage in both reports; `figures` begins with what the verdict is about."""

    before: StageReport
    after: StageReport
    figures: tuple[Figure, ...]
    verdict: Verdict

    @property
    def title(self) -> str:
        """Stage, format, precision and engine."""
        return title_of(self.before)


@dataclass(frozen=True)
class Comparison:
    """All pairs, the stages that only one report has, and what else differs between the two."""

    pairs: tuple[Pair, ...]
    only_before: tuple[StageReport, ...]
    only_after: tuple[StageReport, ...]
    warnings: tuple[str, ...]


def compare(before: LatencyReport, after: LatencyReport) -> Comparison:
    """Compare two reports, the older one first."""
    old, new = list(stages_of(before)), list(stages_of(after))
    alike = _alike if before.provenance == after.provenance else _loosely_alike
    pairs, only_before = [], []
    for stage in old:
        found = next((other for other in new if alike(stage, other)), None)
        if found is None:
            only_before.append(stage)
            continue
        new.remove(found)
        pairs.append(Pair(stage, found, _figures(stage, found), judge(stage.result, found.result)))
    warnings = tuple(
        dict.fromkeys((*_unlike(before, after, pairs), *_other_threads(only_before, new)))
    )
    return Comparison(tuple(pairs), tuple(only_before), tuple(new), warnings)


def regressions(comparison: Comparison, share: float) -> tuple[Pair, ...]:
    """Return the pairs proven to have become slower by more than `share` (0.05 is 5 %).

    Proven: the lower end of the ratio's interval is above `1 + share`; of exact counts, which
    have no interval, the ratio itself.
    """
    return tuple(
        pair
        for pair in comparison.pairs
        if pair.verdict.proven is not None and pair.verdict.proven > 1 + share
    )


def _key(stage: StageReport) -> tuple[object, ...]:
    return (stage.stage, stage.format, stage.precision, stage.engine, stage.threads)


def _alike(one: StageReport, other: StageReport) -> bool:
    return _key(one) == _key(other)


def _loosely_alike(one: StageReport, other: StageReport) -> bool:
    """Of different provenance: a prediction names no engine, and may not tell its precision."""
    precisions = {one.precision, other.precision} - {None}
    return one.stage == other.stage and len(precisions) < 2


def _figures(old: StageReport, new: StageReport) -> tuple[Figure, ...]:
    before = {value.name: value for value in (central(old.result), *others(old.result))}
    after = {value.name: value for value in (central(new.result), *others(new.result))}
    return tuple(
        _figure(before.get(name), after.get(name)) for name in dict.fromkeys((*before, *after))
    )


def _figure(old: Value | None, new: Value | None) -> Figure:
    known = old or new
    if known is None:
        raise ValueError("a figure that neither report has")
    return Figure(
        known.name,
        known.unit,
        None if old is None else old.value,
        None if new is None else new.value,
    )


def _unlike(before: LatencyReport, after: LatencyReport, pairs: list[Pair]) -> Iterator[str]:
    """Say what differs that may explain a difference in time."""
    for what, old, new in (
        ("models", before.subject.model, after.subject.model),
        ("machines", before.machine.name, after.machine.name),
        ("devices", before.machine.device, after.machine.device),
        ("processors", before.machine.cpu, after.machine.cpu),
        ("operating systems", before.machine.os, after.machine.os),
        ("places", before.place, after.place),
    ):
        if old != new:
            yield f"different {what}: {old or 'not told'} and {new or 'not told'}"
    if before.provenance != after.provenance:
        yield (
            f"one report is {before.provenance}, the other {after.provenance}: shown side by "
            "side, not compared"
        )
    for pair in pairs:
        yield from _unlike_stages(pair)
    for report, which in ((before, "before"), (after, "after")):
        yield from (f"{which}: {warning}" for warning in report.warnings)


def _other_threads(only_before: list[StageReport], only_after: list[StageReport]) -> Iterator[str]:
    for old in only_before:
        for new in only_after:
            if _key(old)[:-1] == _key(new)[:-1]:
                threads = f"{old.threads or 'unknown'} and {new.threads or 'unknown'}"
                yield f"{title_of(old)}: different threads, not compared: {threads}"


def _unlike_stages(pair: Pair) -> Iterator[str]:
    old, new = pair.before, pair.after
    for what, one, other in (
        ("pinned cores", old.pinned_cores, new.pinned_cores),
        ("engine versions", old.engine_version, new.engine_version),
        ("delegates", old.delegate, new.delegate),
        ("units", old.unit, new.unit),
    ):
        if one != other:
            yield f"{pair.title}: different {what}: {one or 'none'} and {other or 'none'}"
    if old.artifact_sha256 != new.artifact_sha256:
        yield f"{pair.title}: different artifacts"

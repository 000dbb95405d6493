"""Which ops to keep in single precision, so that a half-precision package agrees with PyTorch.

First those whose float32 values half precision cannot hold, and what reads such values; then, as
long as the package as a whole does not pass, one at a time, the op (or the op with what feeds it)
that makes the largest difference. Every effect is measured, by running the package with these ops
in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.bundle import KeptOp
from phoneward.names import ParityStatus
from phoneward.runtime.engines.mil.mixed import keep_name, run_mixed
from phoneward.runtime.engines.mil.naming import CASTS
from phoneward.runtime.engines.mil.precision import (
    BIGGEST,
    NAN,
    OpPrecision,
    PrecisionReport,
    precision_of,
)

if TYPE_CHECKING:
    from phoneward.bundle import Parity
    from phoneward.runtime.engines.mil.plan import Step, Variable
    from phoneward.runtime.engines.mil.program import Program

GAIN = 0.9
"""An op that leaves more than this share of the error is not worth keeping."""
TRIES = 48
"""Most runs of the package that a search may take."""
_CANDIDATES = 8
_JUST_FAILED = 1.0 + 1e-6

Arrays = Mapping[str, Any]
Measure = Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True)
class Proposal:
    """Ops to keep, in the order in which they were chosen, and what running them so gives.

    `before` and `after` are the largest errors of an output over what its gate allows: up to 1
    passes; infinite where an output is not finite.
    """

    kept: tuple[KeptOp, ...]
    before: float
    after: float
    report: PrecisionReport


def excess(verdict: Parity, outputs: int, limit: float) -> float:
    """How far a verdict on so many outputs is from passing: up to 1 passes.

    The largest error over the limit; infinite where an output is not finite.
    """
    worst = max((o.relative_error for o in verdict.outputs), default=math.inf) / limit
    if verdict.status is ParityStatus.OK:
        return min(worst, 1.0)
    # an error within the limit and yet no agreement: the top class is another
    return math.inf if len(verdict.outputs) < outputs else max(worst, _JUST_FAILED)


def propose(
    program: Program, samples: Sequence[Arrays], measure: Measure, limit: float
) -> Proposal:
    """Propose ops of a package to keep in single precision.

    Args:
        program: the half-precision package.
        samples: arrays by input name.
        measure: says how far answers (by output name, stacked over `samples`) are from passing,
            as `excess` does.
        limit: the relative error that passes.
    """
    report = precision_of(program, samples)
    search = _Search(program, samples, measure, limit)
    before = after = search.badness()
    # NaN compares false: what is not finite must count as bad
    if not before <= 1.0:
        for op, reason in _out_of_range(program, report):
            search.keep(op, reason)
        after = search.badness() if search.kept else before
        if not after <= 1.0:
            after = _greedy(search, report, after)
    return Proposal(tuple(search.kept.values()), before, after, report)


@dataclass
class _Search:
    """What is kept so far, and runs of the package with it."""

    program: Program
    samples: Sequence[Arrays]
    measure: Measure
    limit: float
    kept: dict[str, KeptOp] = field(default_factory=dict)
    tries: int = 0

    def keep(self, op: OpPrecision, reason: str) -> None:
        name = self.names[op.name]
        self.kept.setdefault(name, KeptOp(op=name, name=name, module=op.module, reason=reason))

    @property
    def names(self) -> Mapping[str, str]:
        """By op name, the name that selects it."""
        plan = self.program.plan
        return {step.name: keep_name(plan, step) for step in plan.steps}

    def badness(self, more: Collection[str] = ()) -> float:
        """Largest error over the limit with these kept too; infinite where not finite."""
        self.tries += 1
        kept = {*self.kept, *more}
        rows = [run_mixed(self.program, arrays, kept) for arrays in self.samples]
        stacked = {name: [row[name] for row in rows] for name in rows[0]}
        return self.measure(
            {n: np.stack(v) for n, v in stacked.items() if isinstance(v[0], np.ndarray)}
        )


def _out_of_range(program: Program, report: PrecisionReport) -> Iterator[tuple[OpPrecision, str]]:
    by_name = {op.name: op for op in report.ops}
    sources: dict[Variable, OpPrecision] = {}
    for step in program.plan.steps:
        op = by_name[step.name]
        loud = op.magnitude >= BIGGEST
        read = [sources[var] for var in step.inputs if var in sources]
        if loud:
            sources |= dict.fromkeys(step.outputs, op)
        if step.op.name in CASTS:
            if read:
                sources |= dict.fromkeys(step.outputs, read[0])
        elif loud:
            yield op, f"its values reach {op.magnitude:.3g}; half precision ends at 65504"
        elif read:
            yield op, f"reads values up to {read[0].magnitude:.3g} of {read[0].name}"


def _greedy(search: _Search, report: PrecisionReport, now: float) -> float:
    """Keep what helps most until the package passes, or nothing helps, or the runs are used up."""
    while not now <= 1.0:
        best = math.inf
        chosen: tuple[OpPrecision, ...] = ()
        for group in _groups(search, report):
            if search.tries >= TRIES:
                break
            left = search.badness([search.names[op.name] for op in group])
            if left < best:
                best, chosen = left, group
        improved = best <= GAIN * now or (math.isinf(now) and not math.isinf(best))
        if not chosen or not improved:
            return now
        for op in chosen:
            search.keep(op, _effect(op, now, best, search.limit))
        now = best
    return now


def _effect(op: OpPrecision, before: float, after: float, limit: float) -> str:
    own = "" if op.own_error is None else f"rounds by {op.own_error:.1e} of its range itself; "
    errors = [
        f"{value * limit:.1e}" if math.isfinite(value) else "not finite"
        for value in (before, after)
    ]
    return f"{own}kept, the outputs' error goes from {errors[0]} to {errors[1]}"


def _groups(search: _Search, report: PrecisionReport) -> Iterator[tuple[OpPrecision, ...]]:
    """Candidates: each op with the most to gain alone, and with what feeds it, two ops deep."""
    steps = {step.name: step for step in search.program.plan.steps}
    makers = {var: step for step in steps.values() for var in step.outputs}
    by_name = {op.name: op for op in report.ops}
    open_ops = [
        op
        for op in report.ops
        if op.type not in CASTS and op.half and search.names[op.name] not in search.kept
    ]
    ranked = sorted(open_ops, key=lambda op: op.own_error or 0.0, reverse=True)[:_CANDIDATES]
    finite = [op for op in open_ops if math.isfinite(op.error)]
    growing = sorted(finite, key=lambda op: op.error - op.inherited, reverse=True)
    found = [f.op for f in report.findings if f.op in open_ops]
    lost = [op for op in open_ops if op.nans][:1] if report.first(NAN) else []
    for op in dict.fromkeys((*lost, *found, *ranked, *growing[: _CANDIDATES // 2])):
        group: dict[OpPrecision, None] = {op: None}
        yield tuple(group)
        for _ in range(2):
            fed = [s for one in group for s in _feeding(steps[one.name], makers)]
            group |= dict.fromkeys(by_name[s.name] for s in fed)
            yield tuple(group)


def _feeding(step: Step, makers: Mapping[Variable, Step]) -> Iterator[Step]:
    """The ops whose results an op reads, through casts."""
    for var in step.inputs:
        maker = makers.get(var)
        while maker is not None and maker.op.name in CASTS:
            maker = makers.get(maker.inputs[0]) if maker.inputs else None
        if maker is not None:
            yield maker

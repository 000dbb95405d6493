"""Where a program loses precision: its ops in float32 beside the same ops as declared.

The program is walked twice in lockstep on the same inputs. Errors are those of parity: the largest
of a result over the range (max - min) of its float32 values; a constant's magnitude stands in for
its range, and 1 for the magnitude of zeros. Of decisions it is the share that differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from phoneward.runtime.engines.mil.interpreter import Mode, Results, execute
from phoneward.runtime.engines.mil.modules import Modules
from phoneward.runtime.engines.mil.naming import CASTS
from phoneward.runtime.engines.mil.numerics import Numerics, rounded
from phoneward.runtime.engines.mil.plan import Plan, Step, Variable
from phoneward.runtime.engines.mil.ports import to_carried
from phoneward.runtime.engines.mil.program import Program
from phoneward.runtime.engines.mil.signature import State

LIMIT = 2e-2
"""An error that matters: what the gate of half precision allows an output."""
GROWTH = 4.0
"""How much larger than its inputs' errors an op's error is where the op itself is to blame."""
BIGGEST = 65520.0
"""From here on rounding to half precision gives infinity."""
_MOST = 0.5

OVERFLOW, NAN, JUMP, DRIFT, UNDERFLOW = "overflow", "nan", "jump", "drift", "underflow"


@dataclass(frozen=True)
class OpPrecision:
    """What happened at one op, over all samples.

    `low` and `high` are the range of its finite float32 results. `error` is how far the declared
    results are off (infinite where they alone are not finite), `inherited` the largest error of
    what the op reads, `own_error` how far it is off on the float32 values of its inputs, each
    rounded to its declared type (None for ops that change states). `overflowed`, `nans` and
    `vanished` count results that are finite, numbers and not zero in float32, and infinite, not
    numbers and zero as declared; `size` counts all.
    `half` says whether a result is declared fp16.
    """

    name: str
    type: str
    module: str | None
    half: bool
    low: float
    high: float
    error: float
    inherited: float
    own_error: float | None
    overflowed: int
    nans: int
    vanished: int
    size: int

    @property
    def magnitude(self) -> float:
        """The largest finite magnitude in float32."""
        return max(abs(self.low), abs(self.high))

    def merged(self, other: OpPrecision) -> OpPrecision:
        """The same op over the samples of both."""
        own = [e for e in (self.own_error, other.own_error) if e is not None]
        return replace(
            self,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            error=max(self.error, other.error),
            inherited=max(self.inherited, other.inherited),
            own_error=max(own, default=None),
            overflowed=self.overflowed + other.overflowed,
            nans=self.nans + other.nans,
            vanished=self.vanished + other.vanished,
            size=self.size + other.size,
        )


@dataclass(frozen=True)
class Finding:
    """The first op of the program at which something of a `kind` happens, and `text`: what."""

    kind: str
    op: OpPrecision
    text: str


@dataclass(frozen=True)
class PrecisionReport:
    """All ops in program order, and at most one finding of a kind, in program order too.

    overflow   finite in float32, infinite as declared
    nan        a number in float32, none as declared
    underflow  more than half of the values become zero that are not in float32, which costs more
               than `LIMIT` of the range (tails of a softmax cost nothing)
    jump       off by more than `LIMIT`, and more than `GROWTH` times as far as what it reads: the
               op loses the precision, by cancellation or by amplifying what it gets
    drift      off by more than `LIMIT`, what it reads is not, but nearly: errors that add up

    The last three count only where the error is above `LIMIT` in an output of the program or in
    what reads the op: a residual branch that is nothing beside its trunk may lose what it has.

    A finding is a place to look at, no verdict: what counts are the outputs, and of a model that
    tracks the masks. `outputs` has the error of each output of the program.
    """

    ops: tuple[OpPrecision, ...]
    findings: tuple[Finding, ...]
    outputs: Mapping[str, float]

    def first(self, kind: str) -> Finding | None:
        """Return the finding of a kind, if there is one."""
        return next((finding for finding in self.findings if finding.kind == kind), None)

    def with_modules(self, modules: Mapping[str, str]) -> PrecisionReport:
        """The same, with modules by name of op where the package itself tells none."""

        def told(op: OpPrecision) -> OpPrecision:
            return replace(op, module=modules.get(op.name)) if op.module is None else op

        return replace(
            self,
            ops=tuple(told(op) for op in self.ops),
            findings=tuple(replace(found, op=told(found.op)) for found in self.findings),
        )


def precision_of(
    program: Program,
    samples: Iterable[Mapping[str, Any]],
    numerics: Numerics = Numerics.DECLARED,
) -> PrecisionReport:
    """Walk a program on every sample (arrays by input name) in some numerics and in float32.

    Raises:
        EngineError: an input does not fit, or an op failed.
        ValueError: there is no sample.
    """
    modules = Modules.of(program.package)
    ops: list[OpPrecision] = []
    outputs: dict[str, float] = {}
    for arrays in samples:
        errors: dict[Variable, float] = {}
        row = [_look(seen, modules, errors) for seen in _lockstep(program, arrays, numerics)]
        ops = [a.merged(b) for a, b in zip(ops, row, strict=True)] if ops else row
        for var in program.plan.outputs:
            outputs[var.name] = max(outputs.get(var.name, 0.0), errors.get(var, 0.0))
    if not ops and not outputs:
        raise ValueError("no sample to walk a program on")
    return PrecisionReport(tuple(ops), tuple(_findings(ops, program.plan)), outputs)


@dataclass(frozen=True)
class _Seen:
    """One step of both walks; `own` are its results on rounded float32 inputs, () of a mover."""

    step: Step
    declared: Results
    exact: Results
    own: Results | None


def _lockstep(program: Program, arrays: Mapping[str, Any], numerics: Numerics) -> Iterator[_Seen]:
    declared, exact = (program.fresh().walk(arrays, n) for n in (numerics, Numerics.FLOAT32))
    mode = Mode.of(numerics)
    given = to_carried(program.inputs, arrays)
    values: dict[Variable, Any] = dict(program.plan.constants)
    values |= {var: given[var.name] for var in program.plan.inputs if not var.state}
    for (step, as_declared), (_, in_float) in zip(declared, exact, strict=True):
        yield _Seen(step, as_declared, in_float, _alone(step, values, mode))
        values.update(zip(step.outputs, in_float, strict=True))
        for var in step.frees:
            values.pop(var, None)


def _alone(step: Step, exact: Mapping[Variable, Any], mode: Mode) -> Results | None:
    if any(var.state or isinstance(exact.get(var), State) for var in step.inputs):
        return None
    if step.op.moves:
        return ()
    inputs = dict(exact) if step.blocks else {var: exact[var] for var in step.inputs}
    rounding = {
        var: rounded(value) if var.half and isinstance(value, Tensor) else value
        for var, value in inputs.items()
    }
    with torch.inference_mode():
        return execute(step, rounding, mode)


def _look(seen: _Seen, modules: Modules, errors: dict[Variable, float]) -> OpPrecision:
    step = seen.step
    pairs = _pairs(step, seen.exact, seen.declared)
    errors.update({var: one.error for var, one in pairs.items()})
    own = None if seen.own is None else _pairs(step, seen.exact, seen.own or seen.exact)
    compared = list(pairs.values()) or [_Compared()]
    return OpPrecision(
        name=step.name,
        type=step.op.name,
        module=modules.module_of(step.name),
        half=any(var.half for var in step.outputs),
        low=min(c.low for c in compared),
        high=max(c.high for c in compared),
        error=max(c.error for c in compared),
        inherited=max((errors.get(var, 0.0) for var in step.inputs), default=0.0),
        own_error=None if own is None else max((one.error for one in own.values()), default=0.0),
        overflowed=sum(c.overflowed for c in compared),
        nans=sum(c.nans for c in compared),
        vanished=sum(c.vanished for c in compared),
        size=sum(c.size for c in compared),
    )


def _pairs(step: Step, exact: Results, other: Results) -> dict[Variable, _Compared]:
    return {
        var: compare(a, b)
        for var, a, b in zip(step.outputs, exact, other, strict=True)
        if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and a.numel()
    }


@dataclass(frozen=True)
class _Compared:
    low: float = 0.0
    high: float = 0.0
    error: float = 0.0
    overflowed: int = 0
    nans: int = 0
    vanished: int = 0
    size: int = 0


def compare(exact: Tensor, got: Tensor) -> _Compared:
    """Range of `exact`, error of `got` over it, and what got lost.

    Of decisions and whole numbers the error is the share of values that differ.
    Values of `exact` that are not finite are left out; where only those of `got` are not, the
    error is infinite.
    """
    if not exact.is_floating_point():
        low, high = (float(end) for end in exact.reshape(-1).float().aminmax())
        return _Compared(low, high, float((exact != got).float().mean()), size=exact.numel())
    a, b = exact.reshape(-1).float(), got.reshape(-1).float()
    zeros = b == 0
    counts = {"vanished": int((a[zeros] != 0).sum()), "size": a.numel()}
    difference = float((b - a).abs().max())
    if not math.isfinite(difference):
        counts["overflowed"] = int((a.isfinite() & b.isinf()).sum())
        counts["nans"] = int((~a.isnan() & b.isnan()).sum())
        both = a.isfinite() & b.isfinite()
        difference = float((b[both] - a[both]).abs().max()) if both.any() else 0.0
        difference = math.inf if counts["overflowed"] or counts["nans"] else difference
        a = a[a.isfinite()]
    low, high = (float(end) for end in a.aminmax()) if a.numel() else (0.0, 0.0)
    span = (high - low) or max(abs(low), abs(high)) or 1.0
    return _Compared(low, high, difference / span, **counts)


def _casts(plan: Plan) -> dict[str, str]:
    """By name of a cast, what computes the values that it casts: an op, or else an input."""
    makers: dict[Variable, str] = {}
    found: dict[str, str] = {}
    for step in plan.steps:
        maker = step.name
        if step.op.name in CASTS and step.inputs:
            maker = found[step.name] = makers.get(step.inputs[0], step.inputs[0].name)
        makers |= dict.fromkeys(step.outputs, maker)
    return found


def _absorbed(ops: Iterable[OpPrecision], plan: Plan) -> set[str]:
    """Ops whose errors no result that is computed of theirs shows, as a small term of a sum.

    Ops that move or cast what they read are looked through.
    """
    errors = {op.name: op.error for op in ops}
    shown: set[Variable] = set(plan.outputs)
    absorbed: set[str] = set()
    for step in reversed(plan.steps):
        if step.blocks:
            break  # they may read anything from outside
        shows = not shown.isdisjoint(step.outputs)
        if not shows:
            absorbed.add(step.name)
        looked_through = step.op.moves or step.op.name in CASTS
        kept = any(var.state for var in step.inputs)
        if kept or (shows if looked_through else errors[step.name] > LIMIT):
            shown.update(step.inputs)
    return absorbed


def _findings(ops: Sequence[OpPrecision], plan: Plan) -> Iterator[Finding]:
    seen: set[str] = set()
    casts, absorbed = _casts(plan), _absorbed(ops, plan)
    for op in ops:
        for kind, text in _kinds(op):
            if op.name in absorbed and kind in (UNDERFLOW, JUMP, DRIFT):
                continue
            # errors add up once they have jumped
            if kind not in seen and not (kind == DRIFT and JUMP in seen):
                seen.add(kind)
                of = f" (values of {casts[op.name]})" if op.name in casts else ""
                yield Finding(kind, op, text + of)


def _kinds(op: OpPrecision) -> Iterator[tuple[str, str]]:
    extent = f"float32 values from {op.low:.4g} to {op.high:.4g}"
    if op.overflowed:
        what = f"{op.overflowed} of {op.size} results are infinite"
        why = (
            "half precision ends at 65504" if op.magnitude >= BIGGEST else "what it reads is wrong"
        )
        yield OVERFLOW, f"{what}; {extent}: {why}"
    if op.nans:
        yield NAN, f"{op.nans} of {op.size} results are no numbers; {extent}"
    if op.error <= LIMIT or not math.isfinite(op.error):
        return
    if op.inherited <= LIMIT and op.vanished > _MOST * op.size:
        yield UNDERFLOW, f"{op.vanished} of {op.size} results become zero; {extent}"
    off = f"off by {op.error:.1e} of its range, its inputs by {op.inherited:.1e}; {extent}"
    if op.type in CASTS:
        return
    if op.error > GROWTH * op.inherited:
        yield JUMP, off
    elif op.inherited <= LIMIT:
        yield DRIFT, off

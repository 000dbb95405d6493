"""Runs the steps of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.numerics import FloatSums, HalfSums, Numerics, Sums, rounded
from phoneward.runtime.engines.mil.plan import Plan, Step, Variable
from phoneward.runtime.engines.mil.signature import BLOCKS, SUMS, Op

Values = dict[Variable, Any]
Results = tuple[Any, ...]


@dataclass(frozen=True)
class Mode:
    """Whether results are rounded to their declared type, and how sums of half values add up."""

    rounds: bool
    sums: Sums

    @classmethod
    def of(cls, numerics: Numerics) -> Mode:
        """Translate a choice of numerics."""
        half_sums = numerics is Numerics.HALF_SUMS
        return cls(numerics is not Numerics.FLOAT32, HalfSums() if half_sums else FloatSums())


AS_DECLARED = Mode.of(Numerics.DECLARED)


def walk(plan: Plan, values: Values, mode: Mode) -> Iterator[tuple[Step, Results]]:
    """Run a plan step by step on `values`, which hold its inputs and constants.

    Yields each step with its results; drops from `values` what no later step reads, after the
    step was looked at. Raises `EngineError` that names the op that failed.
    """
    for step in plan.steps:
        results = execute(step, values, mode)
        values.update(zip(step.outputs, results, strict=True))
        yield step, results
        for var in step.frees:
            del values[var]


def execute(step: Step, values: Values, mode: Mode) -> Results:
    """Run one step on the values of its variables; returns its results, rounded as `mode` says.

    Raises `EngineError` that names the op if its function fails.
    """
    op = step.op
    try:
        arguments = dict(step.constants)
        for name, source in step.sources.items():
            arguments[name] = _read(op, name, source, values)
        if op.wants:
            arguments.update(_extras(step, values, mode))
        answer = op.function(**arguments)
        results = answer if isinstance(answer, tuple) else (answer,)
        if mode.rounds and not op.moves:
            results = tuple(
                rounded(result) if var.half else result
                for result, var in zip(results, step.outputs, strict=True)
            )
    except EngineError:
        raise
    except Exception as error:  # torch raises anything over shapes that do not fit
        raise EngineError(f"op '{step.name}' ({op.name}) failed: {error}") from error
    _check(step, results)
    return results


def _read(op: Op, name: str, source: Variable | tuple[Variable, ...], values: Values) -> Any:
    if isinstance(source, Variable):
        return op.converters[name](values[source])
    return op.converters[name]([values[var] for var in source])


def _extras(step: Step, values: Values, mode: Mode) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if SUMS in step.op.wants:
        extras[SUMS] = mode.sums if any(var.half for var in step.outputs) else FloatSums()
    if BLOCKS in step.op.wants:
        extras[BLOCKS] = tuple(_callable(plan, values, mode) for plan in step.blocks)
    return extras


def _callable(plan: Plan, values: Values, mode: Mode) -> Callable[..., Results]:
    def block(*arguments: Any) -> Results:
        # a block reads the variables around it, and must not change them
        inner = {**values, **plan.constants, **dict(zip(plan.inputs, arguments, strict=True))}
        for _ in walk(plan, inner, mode):
            pass
        return tuple(inner[var] for var in plan.outputs)

    return block


def _check(step: Step, results: Sequence[Any]) -> None:
    """Hold results to the shapes that the program declares; sizes that are not fixed fit any."""
    for var, result in zip(step.outputs, results, strict=True):
        if not isinstance(result, Tensor) or var.shape is None:
            continue
        fits = len(var.shape) == result.dim() and all(
            size is None or size == got for size, got in zip(var.shape, result.shape, strict=True)
        )
        if not fits:
            raise EngineError(
                f"op '{step.name}' ({step.op.name}) computed shape {tuple(result.shape)} where "
                f"the program declares {var.shape}"
            )

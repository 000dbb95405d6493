"""A half-precision program as if some of its ops had been kept in single precision.

What coremltools does with an op that is kept: it reads and writes float32, and other ops round
what they read. Its weights are those of the package, which were rounded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from phoneward.runtime.engines.mil.interpreter import AS_DECLARED, Mode, Results, execute
from phoneward.runtime.engines.mil.naming import CASTS, short
from phoneward.runtime.engines.mil.numerics import Numerics, rounded
from phoneward.runtime.engines.mil.plan import Plan, Step, Variable
from phoneward.runtime.engines.mil.ports import from_carried, to_carried
from phoneward.runtime.engines.mil.program import Program

_IN_FLOAT = Mode.of(Numerics.FLOAT32)


def keep_name(plan: Plan, step: Step) -> str:
    """The name that selects an op when its package is converted again.

    A result keeps its name through more passes than its op; the program's outputs have new ones.
    """
    (first, *more) = step.outputs
    if more or first in plan.outputs:
        return short(step.name)
    return short(first.name)


def float_ops(plan: Plan) -> tuple[int, int]:
    """How many ops of a plan compute floats, and how many of these in single precision."""
    kinds = [
        {var.dtype for var in step.outputs} & {"fp16", "fp32"}
        for step in plan.steps
        if step.op.name not in CASTS
    ]
    return sum(bool(kind) for kind in kinds), sum("fp32" in kind for kind in kinds)


def run_mixed(program: Program, arrays: Mapping[str, Any], kept: Collection[str]) -> dict[str, Any]:
    """Run a program once with the ops named `kept` (see `keep_name`) in single precision.

    Returns arrays by output name; states start at zero, those of `program` stay. Raises
    `EngineError` as a call of the program does.
    """
    plan = program.plan
    given = to_carried(program.inputs, arrays)
    program = program.fresh()
    values: dict[Variable, Any] = dict(plan.constants)
    for var in plan.inputs:
        values[var] = program.states[var.name] if var.state else given[var.name]
    with torch.inference_mode():
        for step in plan.steps:
            values.update(zip(step.outputs, _run(plan, step, values, kept), strict=True))
            for var in step.frees:
                del values[var]
    return from_carried(program.outputs, {var.name: values[var] for var in plan.outputs})


def _run(plan: Plan, step: Step, values: dict[Variable, Any], kept: Collection[str]) -> Results:
    if step.op.name in CASTS or keep_name(plan, step) in kept:
        return execute(step, values, _IN_FLOAT)
    inputs = dict(values) if step.blocks else {var: values[var] for var in step.inputs}
    for var, value in inputs.items():
        if var.half and isinstance(value, Tensor):
            inputs[var] = rounded(value)
    return execute(step, inputs, AS_DECLARED)

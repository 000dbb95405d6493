"""From a program as coremltools reads it to the steps that the interpreter runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.interpreter import AS_DECLARED, execute
from phoneward.runtime.engines.mil.ops import OPS
from phoneward.runtime.engines.mil.plan import Plan, Step, Variable
from phoneward.runtime.engines.mil.signature import Op, tensor

_CONST = "const"
_CONSTEXPR = "constexpr_"


def compile_function(function: Any) -> Plan:
    """Turn a function (or block) of a coremltools program into a plan.

    Compressed weights (`constexpr_*`) are unpacked here, once.

    Raises:
        EngineError: an op is unknown, or lacks an input that it must have.
    """
    return _Compiler().plan(function, tuple(function.inputs.values()))


@dataclass
class _Compiler:
    """Holds the variables made so far, by the identity of coremltools' own."""

    variables: dict[int, Variable] = field(default_factory=dict)
    constants: dict[Variable, Any] = field(default_factory=dict)

    def plan(self, block: Any, inputs: Sequence[Any]) -> Plan:
        arguments = tuple(self.variable(var) for var in inputs)
        steps = []
        for op in block.operations:
            if op.op_type == _CONST:
                self._constant(op)
            elif op.op_type.startswith(_CONSTEXPR):
                self._unpack(op)
            else:
                steps.append(self._step(op))
        outputs = tuple(self.variable(var) for var in block.outputs)
        read = {var for step in steps for var in _reads(step)} | set(outputs)
        constants = {var: self.constants[var] for var in read if var in self.constants}
        return Plan(arguments, outputs, _freeing(steps, {*outputs, *constants}), constants)

    def variable(self, var: Any) -> Variable:
        known = self.variables.get(id(var))
        if known is None:
            known = self.variables[id(var)] = _describe(var)
        return known

    def _constant(self, op: Any) -> None:
        (var,) = op.outputs
        self.constants[self.variable(var)] = _carried(var.val)

    def _unpack(self, op: Any) -> None:
        step = self._step(op)
        values = execute(step, {}, AS_DECLARED)
        self.constants.update(zip(step.outputs, values, strict=True))

    def _step(self, op: Any) -> Step:
        known = OPS.get(op.op_type)
        if known is None:
            raise EngineError(f"no op '{op.op_type}' here ('{op.name}')")
        blocks = tuple(self.plan(block, tuple(block.inputs)) for block in op.blocks)
        constants, sources = self._inputs(op, known)
        if missing := known.required - set(constants) - set(sources):
            raise EngineError(f"op '{op.name}' ({known.name}) has no {', '.join(sorted(missing))}")
        outputs = tuple(self.variable(var) for var in op.outputs)
        return Step(known, op.name, constants, sources, outputs, blocks)

    def _inputs(self, op: Any, known: Op) -> tuple[dict[str, Any], dict[str, Any]]:
        constants: dict[str, Any] = {}
        sources: dict[str, Any] = {}
        for name, given in op.inputs.items():
            if name not in known.converters:
                if given is not None and not name.startswith("_"):
                    raise EngineError(f"op '{op.name}' ({known.name}): unknown input '{name}'")
                continue
            if isinstance(given, (list, tuple)):
                sources[name] = tuple(self.variable(var) for var in given)
            elif given is not None and (var := self.variable(given)) in self.constants:
                constants[name] = _converted(op, known, name, self.constants[var])
            elif given is not None:
                sources[name] = var
        return constants, sources


def _converted(op: Any, known: Op, name: str, value: Any) -> Any:
    try:
        return known.converters[name](value)
    except (ValueError, TypeError) as error:  # such as no number where one is meant
        raise EngineError(f"op '{op.name}' ({known.name}): input '{name}': {error}") from error


def _describe(var: Any) -> Variable:
    from coremltools.converters.mil.mil import types

    kind = var.sym_type
    if types.is_state(kind):
        inner = kind.wrapped_type()
        name = types.builtin_to_string(inner.get_primitive())
        return Variable(var.name, name, _shape(inner.get_shape()), state=True)
    if types.is_tensor(kind):
        name = types.builtin_to_string(kind.get_primitive())
        return Variable(var.name, name, _shape(kind.get_shape()))
    if types.is_scalar(kind) or kind is types.str:
        return Variable(var.name, types.builtin_to_string(kind), ())
    return Variable(var.name)


def _shape(sizes: Iterable[Any]) -> tuple[int | None, ...]:
    return tuple(int(size) if isinstance(size, (int, np.integer)) else None for size in sizes)


def _carried(value: Any) -> Any:
    """A constant as the signature wants it: numbers as tensors, texts and lists as they are."""
    from coremltools.converters.mil.mil.operation import mil_list

    if isinstance(value, mil_list):
        return list(value.ls)
    plain = isinstance(value, (str, list, dict)) or value is None
    text = isinstance(value, np.ndarray) and value.dtype.kind in "US"
    return value if plain or text else tensor(value)


def _reads(step: Step) -> set[Variable]:
    """The variables a step reads, those that its blocks read from outside included."""
    read = set(step.inputs)
    for plan in step.blocks:
        read |= {var for inner in plan.steps for var in _reads(inner)} | set(plan.outputs)
    return read


def _freeing(steps: Sequence[Step], keep: set[Variable]) -> tuple[Step, ...]:
    """Let each step free what it and the later ones are the last to read."""
    needed, made = set(keep), set()
    freed: list[Step] = []
    for step in reversed(steps):
        read = _reads(step) | set(step.outputs)
        freed.append(replace(step, frees=tuple(read - needed)))
        needed |= read
        made |= set(step.outputs)
    # what comes from outside of the block is not the block's to free
    return tuple(
        replace(step, frees=tuple(var for var in step.frees if var in made))
        for step in reversed(freed)
    )

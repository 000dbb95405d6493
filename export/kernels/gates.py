"""Activations written out by hand become the one call that they are.

`x * f(x)`, with `f` made of steps of one element each that nothing else reads, is a gate: SiLU,
hard swish, GELU and Mish are of this form. An engine runs it in one pass or not at all.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from phoneward.export.kernels.calls import Call, Program
from phoneward.export.kernels.rules import RULES, Role

_STEPS = (Role.ELEMENTWISE, Role.ACTIVATION)
# by what is inside, the first that is there decides
_NAMES = (
    ("aten.softplus", "aten.mish"),
    ("aten.erf", "aten.gelu"),
    ("aten.tanh", "aten.gelu"),
    ("aten.hardsigmoid", "aten.hardswish"),
    ("aten.hardtanh", "aten.hardswish"),
    ("aten.relu6", "aten.hardswish"),
    ("aten.clamp", "aten.hardswish"),
)
_SIGMOID = "aten.sigmoid"


def merge_gates(program: Program) -> Program:
    """Return the program with each gate as one call of the activation's name.

    The call's `covers` has what it was written as.
    """
    makers = {call.name: call for call in program.calls}
    readers = Counter(operand.name for call in program.calls for operand in call.operands)
    readers.update(program.outputs)
    merged: dict[str, Call] = {}
    gone: set[str] = set()
    for call in program.calls:
        found = _gate(call, makers, readers) if call.op == "aten.mul" else None
        if found is not None and not gone & found[1]:
            merged[call.name], inner = found
            gone |= inner
    calls = tuple(merged.get(c.name, c) for c in program.calls if c.name not in gone)
    return dataclasses.replace(program, calls=calls)


def _gate(
    call: Call, makers: dict[str, Call], readers: Counter[str]
) -> tuple[Call, set[str]] | None:
    if len(call.operands) != 2:
        return None
    for source, gate in (call.operands, call.operands[::-1]):
        if source.shape != gate.shape or source.name == gate.name:
            continue
        inner = _made_of(gate.name, source.name, makers)
        if inner is None or _read_elsewhere(inner, makers, readers):
            continue
        covers = (*(c.op for c in makers.values() if c.name in inner), call.op)
        if name := _name(covers, [makers[n] for n in inner], source.name):
            arguments = {"input": source}
            merged = dataclasses.replace(call, op=name, arguments=arguments, covers=covers)
            return merged, inner
    return None


def _made_of(gate: str, source: str, makers: dict[str, Call]) -> set[str] | None:
    """The calls between `source` and `gate`, or None if something else goes into it."""
    inner: set[str] = set()
    waiting = [gate]
    while waiting:
        name = waiting.pop()
        if name == source or name in inner:
            continue
        call = makers.get(name)
        if call is None:
            continue  # a constant, or an input: then the source is never met
        rule = RULES.get(call.op)
        if rule is None or rule.role not in _STEPS:
            return None
        inner.add(name)
        waiting += [operand.name for operand in call.operands]
    met = any(operand.name == source for n in inner for operand in makers[n].operands)
    return inner if met else None


def _read_elsewhere(inner: set[str], makers: dict[str, Call], readers: Counter[str]) -> bool:
    within = Counter(operand.name for name in inner for operand in makers[name].operands)
    outside = sum(readers[name] - within[name] for name in inner)
    # the gate itself is read once, by the product
    return outside != 1


def _name(covers: tuple[str, ...], inner: list[Call], source: str) -> str | None:
    for step, name in _NAMES:
        if step in covers:
            return name
    sigmoids = [call for call in inner if call.op == _SIGMOID]
    if len(sigmoids) != 1:
        return None
    plain = sigmoids[0].operands[0].name == source
    return "aten.silu" if plain and len(inner) == 1 else "aten.gelu"

"""Layouts of a graph's inputs: permutations that no engine executes.

A graph that computes on a channel-last picture is traced with the picture permuted, and permuted
back for its first convolution. An engine whose pictures are channel-last has neither.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict

from phoneward.export.kernels.calls import Call, Program
from phoneward.export.kernels.rules import RULES, Role

_PERMUTE, _VIEW = "aten.permute", "aten.view"


def undo_layouts(program: Program) -> Program:
    """Return the program with permutations of inputs that are undone again as views.

    Between the two only steps of one element each with constants, and views, may stand.
    """
    readers: dict[str, list[Call]] = defaultdict(list)
    computed = set(program.inputs)
    for call in program.calls:
        for operand in call.operands:
            readers[operand.name].append(call)
        if any(operand.name in computed for operand in call.operands):
            computed.add(call.name)
    returned = program.outputs
    sole = {n: calls[0] for n, calls in readers.items() if len(calls) == 1 and n not in returned}
    views: dict[str, Call] = {}
    for call in program.calls:
        if call.op == _PERMUTE and call.operands[0].name in program.inputs:
            undone = _undone(call, sole, computed)
            if undone is not None:
                views.update({one.name: _view(one) for one in (call, undone)})
    calls = tuple(views.get(call.name, call) for call in program.calls)
    return dataclasses.replace(program, calls=calls)


def _undone(first: Call, readers: dict[str, Call], computed: set[str]) -> Call | None:
    """The call that puts back what `first` permutes; `readers` has values that only one reads."""
    call = first
    while (reader := readers.get(call.name)) is not None:
        if reader.op == _PERMUTE:
            return reader if _inverse(first, reader, call.results[0]) else None
        rule = RULES.get(reader.op)
        others = [operand for operand in reader.operands if operand.name != call.name]
        passes = rule is not None and rule.role in (Role.VIEW, Role.ELEMENTWISE)
        if not passes or any(operand.name in computed for operand in others):
            return None
        call = reader
    return None


def _inverse(first: Call, second: Call, before: tuple[int, ...]) -> bool:
    if before != first.results[0]:
        return False
    there, back = (call.arguments["dims"] for call in (first, second))
    rank = len(there)
    return [there[dim % rank] % rank for dim in back] == list(range(rank))


def _view(call: Call) -> Call:
    return dataclasses.replace(call, op=_VIEW, arguments={"input": call.operands[0]})

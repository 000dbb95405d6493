"""A module's traced graph as calls of ops over named values, every shape known."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

Shape = tuple[int, ...]
GETITEM = "getitem"


@dataclass(frozen=True)
class Operand:
    """A value that a call reads."""

    name: str
    shape: Shape

    @property
    def numel(self) -> int:
        """Count its elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Call:
    """One op of the graph.

    Attributes:
        op: its name without overload and in-place underscore, `aten.conv2d`.
        name: of its result.
        module: path of the PyTorch module it was called in, None for the model itself.
        arguments: by the names of the op's schema; tensors are `Operand`s.
        results: shapes of the tensors it returns.
        covers: the traced ops that it stands for, if it was put in their place.
    """

    op: str
    name: str
    module: str | None
    arguments: Mapping[str, Any]
    results: tuple[Shape, ...]
    covers: tuple[str, ...] = ()

    @property
    def ops(self) -> tuple[str, ...]:
        """The traced ops."""
        return self.covers or (self.op,)

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The tensors it reads, in order, those in lists included."""
        return tuple(_operands(self.arguments.values()))

    @property
    def written(self) -> int:
        """Elements of all of its results."""
        return sum(math.prod(shape) for shape in self.results)


@dataclass(frozen=True)
class Program:
    """Calls in the order of execution; `inputs` are computed values, what else is read is not."""

    calls: tuple[Call, ...]
    inputs: frozenset[str]
    outputs: frozenset[str]


def traced(module: nn.Module, inputs: Sequence[Tensor]) -> Program:
    """Trace a module in eval mode on example inputs, which may be on the meta device.

    Ops stay as composite as PyTorch calls them: a normalisation or an attention is one call.
    """
    with torch.no_grad():
        return program_of(torch.export.export(module, tuple(inputs), strict=False))


def program_of(exported: ExportedProgram) -> Program:
    """Read the calls out of an exported program."""
    nodes = list(exported.graph.nodes)
    calls = tuple(_call(node) for node in nodes if node.op == "call_function")
    read = [node for output in nodes if output.op == "output" for node in output.all_input_nodes]
    inputs = frozenset(str(name) for name in exported.graph_signature.user_inputs)
    return Program(calls, inputs, frozenset(node.name for node in read))


def _call(node: fx.Node) -> Call:
    return Call(
        op=_name(node.target),
        name=node.name,
        module=_module(node),
        arguments=_arguments(node),
        results=tuple(tuple(tensor.shape) for tensor in _tensors(node.meta.get("val"))),
    )


def _name(target: Any) -> str:
    if target is operator.getitem:
        return GETITEM
    if isinstance(target, torch._ops.OpOverload):
        namespace, _, op = target._schema.name.partition("::")
        # `relu_` is `relu`; a name such as `__and__` is no in-place form
        return f"{namespace}.{op if op.endswith('__') else op.removesuffix('_')}"
    return str(getattr(target, "__name__", target))


def _module(node: fx.Node) -> str | None:
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed([path for path, _ in stack.values()]), "")
    return str(path).removeprefix("L['self'].") or None


def _arguments(node: fx.Node) -> dict[str, Any]:
    if not isinstance(node.target, torch._ops.OpOverload):
        given = {str(place): value for place, value in enumerate(node.args)}
        return {name: _plain(value) for name, value in {**given, **node.kwargs}.items()}
    schema = node.target._schema.arguments
    given = dict(zip((argument.name for argument in schema), node.args, strict=False))
    given.update(node.kwargs)
    # in the order of the schema
    return {a.name: _plain(given.get(a.name, a.default_value)) for a in schema}


def _plain(value: Any) -> Any:
    if isinstance(value, fx.Node):
        known = value.meta.get("val")
        shape = tuple(known.shape) if isinstance(known, Tensor) else ()
        return Operand(value.name, shape)
    if isinstance(value, (list, tuple)):
        return tuple(_plain(one) for one in value)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)


def _operands(values: Any) -> Iterator[Operand]:
    for value in values:
        if isinstance(value, Operand):
            yield value
        elif isinstance(value, tuple):
            yield from _operands(value)

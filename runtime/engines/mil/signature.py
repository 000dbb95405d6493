"""What an op of an ML program is here: a function, and its signature as the schema.

A value that flows between ops is carried as one of these, whatever width the program declares:

    fp16, fp32                      a float32 tensor (fp16: of values that half precision has)
    int8 ... int32, uint8 ...       an int32 tensor
    bool                            a bool tensor
    string, list, state             str, list of tensors, `State`

A function names the inputs of its op and annotates each with what it wants: `Tensor`, or one of
the plain types below, which constants are turned into once and everything else at every call.
`None` in the annotation makes an input optional. It never changes a tensor that it was given.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from phoneward.errors import DuplicateName, EngineError

Function = TypeVar("Function", bound=Callable[..., Any])

Ints = tuple[int, ...]
Bools = tuple[bool, ...]
Tensors = list[Tensor]
Labels = list[Any]
Block = Callable[..., tuple[Any, ...]]

# parameters that the interpreter fills in, which are no inputs of the op
BLOCKS, SUMS = "blocks", "sums"


@dataclass
class State:
    """A tensor that lives from one call to the next."""

    value: Tensor


@dataclass(frozen=True)
class Op:
    """One op type: the function, how to convert each input, and what it wants besides.

    `moves` says that the op only moves values about, so that its results need no rounding.
    """

    name: str
    function: Callable[..., Any]
    moves: bool
    converters: Mapping[str, Callable[[Any], Any]]
    required: frozenset[str]
    wants: frozenset[str]


@dataclass
class Table:
    """The ops of one module, in the order in which they are written."""

    ops: dict[str, Op] = field(default_factory=dict)

    def op(self, function: Function) -> Function:
        """Register a function under its own name, without a final underscore."""
        self._add(function, moves=False)
        return function

    def mover(self, function: Function) -> Function:
        """Register a function that computes nothing: its results are values of its inputs."""
        self._add(function, moves=True)
        return function

    def _add(self, function: Callable[..., Any], *, moves: bool) -> None:
        name = function.__name__.removesuffix("_")
        if name in self.ops:
            raise DuplicateName("op", name)
        self.ops[name] = _describe(name, function, moves)


def merged(tables: Iterator[Table]) -> dict[str, Op]:
    """Put tables together; raises `DuplicateName` for an op that two of them have."""
    ops: dict[str, Op] = {}
    for table in tables:
        for name, op in table.ops.items():
            if name in ops:
                raise DuplicateName("op", name)
            ops[name] = op
    return ops


def tensor(value: Any) -> Tensor:
    """Carry a constant, a number or an array as a tensor; a tensor is returned as it is."""
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    if array.dtype.kind == "f":
        return torch.from_numpy(np.array(array, np.float32))
    if array.dtype.kind == "b":
        return torch.from_numpy(np.array(array, np.bool_))
    if array.dtype.kind in "iu":
        return torch.from_numpy(np.array(array.astype(np.int64), np.int32))
    raise EngineError(f"no tensor can carry a value of type {array.dtype}")


def _describe(name: str, function: Callable[..., Any], moves: bool) -> Op:
    hints = typing.get_type_hints(function)
    converters: dict[str, Callable[[Any], Any]] = {}
    required, wants = set(), set()
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in (BLOCKS, SUMS):
            wants.add(parameter.name)
            continue
        converters[parameter.name] = _converter(hints[parameter.name])
        if parameter.default is inspect.Parameter.empty:
            required.add(parameter.name)
    return Op(name, function, moves, converters, frozenset(required), frozenset(wants))


def _converter(hint: Any) -> Callable[[Any], Any]:
    if isinstance(hint, UnionType) or typing.get_origin(hint) is typing.Union:
        (inner,) = (part for part in typing.get_args(hint) if part is not NoneType)
        convert = _converter(inner)
        return lambda value: None if value is None else convert(value)
    return _CONVERTERS[hint]


def _array(value: Any) -> Any:
    return value.numpy() if isinstance(value, Tensor) else np.asarray(value)


def _many(kind: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: tuple(kind(item) for item in _array(value).reshape(-1))


def _one(kind: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def single(value: Any) -> Any:
        array = _array(value)
        if array.size != 1:
            raise ValueError(f"a single value is meant, not {array.size} of shape {array.shape}")
        return kind(array.reshape(-1)[0])

    return single


def _as_is(value: Any) -> Any:
    return value


_CONVERTERS: Mapping[Any, Callable[[Any], Any]] = {
    Tensor: tensor,
    Tensors: lambda values: [tensor(value) for value in values],
    Ints: _many(int),
    Bools: _many(bool),
    int: _one(int),
    bool: _one(bool),
    float: _one(float),
    str: str,
    State: _as_is,
    Labels: list,
    Any: _as_is,
}

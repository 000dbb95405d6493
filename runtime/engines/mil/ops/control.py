"""Branches, loops, lists and states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from phoneward.runtime.engines.mil.signature import Block, Ints, Labels, State, Table

TABLE = Table()

_DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float32,
    "int32": torch.int32,
    "bool": torch.bool,
}


@dataclass(frozen=True)
class Items:
    """A list of the program: its elements, None where none was written and their shape is open.

    A `dynamic` list grows when it is written to past its end.
    """

    values: tuple[Tensor | None, ...]
    dynamic: bool
    blank: Tensor | None


@TABLE.mover
def cond(pred: bool, *, blocks: tuple[Block, ...]) -> tuple[Any, ...]:
    when_true, when_false = blocks
    return when_true() if pred else when_false()


@TABLE.mover
def while_loop(loop_vars: Labels, *, blocks: tuple[Block, ...]) -> tuple[Any, ...]:
    condition, body = blocks
    values = tuple(loop_vars)
    while _holds(condition(*values)[0]):
        values = body(*values)
    return values


@TABLE.mover
def make_list(
    elem_shape: Labels,
    init_length: int = 1,
    dynamic_length: bool = True,
    dtype: str = "fp32",
) -> Items:
    """Elements start as zeros; one whose shape is only known at run time starts as nothing."""
    if dtype not in _DTYPES:
        raise ValueError(f"no list of {dtype}")
    blank = None
    if not any(isinstance(size, str) for size in elem_shape):
        blank = torch.zeros([int(size) for size in elem_shape], dtype=_DTYPES[dtype])
    return Items((blank,) * init_length, dynamic_length, blank)


@TABLE.mover
def list_length(ls: Any) -> Tensor:
    return torch.tensor(len(ls.values), dtype=torch.int32)


@TABLE.mover
def list_read(ls: Any, index: int) -> Tensor:
    return _element(ls, index)


@TABLE.mover
def list_write(ls: Any, index: int, value: Tensor) -> Items:
    return _written(ls, (index,), (value,))


@TABLE.mover
def list_gather(ls: Any, indices: Ints) -> Tensor:
    return torch.stack([_element(ls, index) for index in indices])


@TABLE.mover
def list_scatter(ls: Any, indices: Ints, value: Tensor) -> Items:
    return _written(ls, indices, value.unbind(0))


@TABLE.mover
def read_state(input: State) -> Tensor:  # noqa: A002 - the op's own name for it
    return input.value


@TABLE.mover
def coreml_update_state(state: State, value: Tensor) -> Tensor:
    """Write a state and read it again; coremltools reads Core ML's `write_state` as this."""
    state.value = value
    return value


def _holds(condition: Tensor) -> bool:
    if condition.numel() != 1:
        raise ValueError(f"a condition of shape {tuple(condition.shape)}")
    return bool(condition)


def _element(items: Items, index: int) -> Tensor:
    if not 0 <= index < len(items.values):
        raise IndexError(f"element {index} of a list of {len(items.values)}")
    value = items.values[index]
    if value is None:
        raise ValueError(f"element {index} of a list is read before it is written")
    return value


def _written(items: Items, indices: Sequence[int], values: Sequence[Tensor]) -> Items:
    elements = list(items.values)
    for index, value in zip(indices, values, strict=True):
        if index < 0 or (index >= len(elements) and not items.dynamic):
            raise IndexError(f"element {index} of a list of {len(elements)}")
        if index >= len(elements):
            elements += [items.blank] * (index + 1 - len(elements))
        elements[index] = value
    return Items(tuple(elements), items.dynamic, items.blank)

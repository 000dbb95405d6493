"""Elementwise ops on two values, which are broadcast as numpy does, and the choice of one of them.

Integers stay integers: sums and products wrap around at 32 bits, quotients are cut or floored.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from phoneward.runtime.engines.mil.signature import Table

TABLE = Table()


@TABLE.op
def add(x: Tensor, y: Tensor) -> Tensor:
    return x + y


@TABLE.op
def sub(x: Tensor, y: Tensor) -> Tensor:
    return x - y


@TABLE.op
def mul(x: Tensor, y: Tensor) -> Tensor:
    return x * y


@TABLE.op
def real_div(x: Tensor, y: Tensor) -> Tensor:
    if _integers(x, y):
        # coremltools declares the quotient of integers an integer, so its fraction is cut
        return _wide(x, y, lambda a, b: torch.div(a, b, rounding_mode="trunc"))
    return x / y


@TABLE.op
def floor_div(x: Tensor, y: Tensor) -> Tensor:
    if _integers(x, y):
        return _wide(x, y, lambda a, b: torch.div(a, b, rounding_mode="floor"))
    return torch.div(x, y, rounding_mode="floor")


@TABLE.op
def mod(x: Tensor, y: Tensor) -> Tensor:
    # the remainder has the sign of the divisor, as numpy's
    return _wide(x, y, torch.remainder) if _integers(x, y) else torch.remainder(x, y)


@TABLE.op
def pow_(x: Tensor, y: Tensor) -> Tensor:
    return torch.pow(x, y)


@TABLE.mover
def maximum(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x, y)


@TABLE.mover
def minimum(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(x, y)


@TABLE.op
def equal(x: Tensor, y: Tensor) -> Tensor:
    return x == y


@TABLE.op
def not_equal(x: Tensor, y: Tensor) -> Tensor:
    return x != y


@TABLE.op
def greater(x: Tensor, y: Tensor) -> Tensor:
    return x > y


@TABLE.op
def greater_equal(x: Tensor, y: Tensor) -> Tensor:
    return x >= y


@TABLE.op
def less(x: Tensor, y: Tensor) -> Tensor:
    return x < y


@TABLE.op
def less_equal(x: Tensor, y: Tensor) -> Tensor:
    return x <= y


@TABLE.op
def logical_and(x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_and(x, y)


@TABLE.op
def logical_or(x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_or(x, y)


@TABLE.op
def logical_xor(x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_xor(x, y)


@TABLE.mover
def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond, a, b)


def _integers(x: Tensor, y: Tensor) -> bool:
    return not (x.is_floating_point() or y.is_floating_point())


def _wide(x: Tensor, y: Tensor, compute: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Divide in 64 bits: -2**31 / -1 fits no 32, and would stop the process."""
    return compute(x.long(), y.long()).int()

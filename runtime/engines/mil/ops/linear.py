"""Matrix products."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from phoneward.runtime.engines.mil.numerics import Sums
from phoneward.runtime.engines.mil.signature import Table, Tensors

TABLE = Table()

# the equations that Core ML has, letters numbered in the order in which they appear
_EINSUMS = ("0123,0324->0124", "012,213->013")


@TABLE.op
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, sums: Sums) -> Tensor:
    weight = _like(x, weight)
    bias = None if bias is None else _like(x, bias)
    if sums.exact and x.is_floating_point():
        return F.linear(x, weight, bias)
    # the many rows of x as columns, over which sums are quicker
    product = sums.matmul(weight, x.reshape(-1, x.shape[-1]).T).T.reshape(*x.shape[:-1], -1)
    return product if bias is None else product + bias


@TABLE.op
def matmul(
    x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False, *, sums: Sums
) -> Tensor:
    if y.is_floating_point():
        x = _like(y, x)
    y = _like(x, y)
    # a vector has nothing to transpose: pairs as numpy's matmul does
    a = x.mT if transpose_x and x.dim() > 1 else x
    b = y.mT if transpose_y and y.dim() > 1 else y
    if a.dim() == 1:
        return matmul(a[None], b, sums=sums).squeeze(-1 if b.dim() == 1 else -2)
    if b.dim() == 1:
        return matmul(a, b[:, None], sums=sums).squeeze(-1)
    return sums.matmul(a, b)


@TABLE.op
def einsum(values: Tensors, equation: str, *, sums: Sums) -> Tensor:
    if _numbered(equation) not in _EINSUMS:
        raise ValueError(f"equation '{equation}' is not supported")
    x, y = values
    # (..., c, h, w) by (..., w, h, u): a product of matrices for each h
    return sums.matmul(x.transpose(-3, -2), y.transpose(-3, -2)).transpose(-3, -2)


def _like(x: Tensor, other: Tensor) -> Tensor:
    """Carry `other` as the result of an op with `x` is; whole numbers from floats are not."""
    if other.is_floating_point() and not x.is_floating_point():
        raise ValueError("a product of whole numbers and floats as whole numbers")
    return other.to(x.dtype)


def _numbered(equation: str) -> str:
    order: dict[str, str] = {}
    return "".join(
        order.setdefault(sign, str(len(order))) if sign.isalpha() else sign
        for sign in equation
        if not sign.isspace()
    )

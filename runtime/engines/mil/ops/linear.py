"""Matrix products."""

from __future__ import annotations

from torch import Tensor

from phoneward.runtime.engines.mil.numerics import Sums
from phoneward.runtime.engines.mil.signature import Table

TABLE = Table()


@TABLE.op
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, sums: Sums) -> Tensor:
    product = sums.matmul(x, weight.T)
    return product if bias is None else product + bias


@TABLE.op
def matmul(
    x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False, *, sums: Sums
) -> Tensor:
    # a vector has nothing to transpose: pairs as numpy's matmul does
    a = x.mT if transpose_x and x.dim() > 1 else x
    b = y.mT if transpose_y and y.dim() > 1 else y
    if a.dim() == 1:
        return matmul(a[None], b, sums=sums).squeeze(-2)
    if b.dim() == 1:
        return matmul(a, b[:, None], sums=sums).squeeze(-1)
    return sums.matmul(a, b)

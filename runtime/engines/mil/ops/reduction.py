"""Reductions over axes; those of integers are exact, then cut and wrapped to 32 bits."""

from __future__ import annotations

import torch
from torch import Tensor

from phoneward.runtime.engines.mil.numerics import Sums, rounded
from phoneward.runtime.engines.mil.signature import Ints, Table

TABLE = Table()


@TABLE.op
def reduce_sum(
    x: Tensor, axes: Ints | None = None, keep_dims: bool = False, *, sums: Sums
) -> Tensor:
    return _kept(_total(x, axes, sums), x, axes, keep_dims)


@TABLE.op
def reduce_mean(
    x: Tensor, axes: Ints | None = None, keep_dims: bool = False, *, sums: Sums
) -> Tensor:
    total = _total(x, axes, sums)
    count = x.numel() // max(total.numel(), 1)
    mean = total / count if x.is_floating_point() else total.double() / count
    return _kept(mean, x, axes, keep_dims)


@TABLE.op
def reduce_sum_square(
    x: Tensor, axes: Ints | None = None, keep_dims: bool = False, *, sums: Sums
) -> Tensor:
    return _kept(_total(_square(x, sums), axes, sums), x, axes, keep_dims)


@TABLE.op
def reduce_l1_norm(
    x: Tensor, axes: Ints | None = None, keep_dims: bool = False, *, sums: Sums
) -> Tensor:
    return _kept(_total(x.abs(), axes, sums), x, axes, keep_dims)


@TABLE.op
def reduce_l2_norm(
    x: Tensor, axes: Ints | None = None, keep_dims: bool = False, *, sums: Sums
) -> Tensor:
    return _kept(_real(_total(_square(x, sums), axes, sums)).sqrt(), x, axes, keep_dims)


@TABLE.op
def reduce_log_sum(
    x: Tensor, axes: Ints | None = None, keep_dims: bool = False, *, sums: Sums
) -> Tensor:
    return _kept(_real(_total(x, axes, sums)).log(), x, axes, keep_dims)


@TABLE.op
def reduce_log_sum_exp(
    x: Tensor, axes: Ints | None = None, keep_dims: bool = False, *, sums: Sums
) -> Tensor:
    values = _real(x)
    dims = _dims(x, axes)
    if sums.exact:
        result = values.logsumexp(dims, keepdim=True) if dims else values
    else:
        highest = values.amax(dims, keepdim=True) if dims else values
        # an infinite maximum would make differences of infinities
        highest = torch.where(highest.isfinite(), highest, 0)
        powers = rounded((values - highest).exp())
        result = rounded(sums.total(powers, dims).log()) + highest
    return _kept(result, x, axes, keep_dims)


@TABLE.op
def reduce_prod(
    x: Tensor, axes: Ints | None = None, keep_dims: bool = False, *, sums: Sums
) -> Tensor:
    result = x
    for axis in _dims(x, axes):
        if x.is_floating_point() and not sums.exact:
            product = torch.ones(())
            for part in result.split(1, dim=axis):
                product = rounded(product * part)
            result = product
        else:
            result = result.prod(axis, keepdim=True)
    return _kept(result, x, axes, keep_dims)


@TABLE.mover
def reduce_max(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    dims = _dims(x, axes)
    return _kept(x.amax(dims, keepdim=True) if dims else x, x, axes, keep_dims)


@TABLE.mover
def reduce_min(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    dims = _dims(x, axes)
    return _kept(x.amin(dims, keepdim=True) if dims else x, x, axes, keep_dims)


@TABLE.op
def reduce_argmax(
    x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Tensor:
    # of equal values the first, as numpy has it; Core ML promises none
    return x.argmax(axis, keepdim=keep_dims).int()


@TABLE.op
def reduce_argmin(
    x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Tensor:
    return x.argmin(axis, keepdim=keep_dims).int()


def _dims(x: Tensor, axes: Ints | None) -> tuple[int, ...]:
    chosen = range(x.dim()) if axes is None else axes
    return tuple(axis % x.dim() for axis in chosen)


def _total(x: Tensor, axes: Ints | None, sums: Sums) -> Tensor:
    dims = _dims(x, axes)
    if x.is_floating_point():
        return sums.total(x, dims)
    return x.sum(dims, keepdim=True, dtype=torch.int64) if dims else x


def _square(x: Tensor, sums: Sums) -> Tensor:
    if not x.is_floating_point():
        return x.long() * x.long()
    return x * x if sums.exact else rounded(x * x)


def _real(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float32 else x.double()


def _kept(result: Tensor, x: Tensor, axes: Ints | None, keep_dims: bool) -> Tensor:
    """Give a result, whose reduced axes have size 1, the type of `x` and the shape asked for."""
    if not x.is_floating_point():
        result = result.long().int()
    dims = _dims(x, axes)
    return result if keep_dims or not dims else result.squeeze(dims)

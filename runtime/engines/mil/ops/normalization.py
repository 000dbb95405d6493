"""Normalisations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from phoneward.runtime.engines.mil.numerics import Sums, rounded
from phoneward.runtime.engines.mil.signature import Ints, Table

TABLE = Table()


@TABLE.op
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


@TABLE.op
def instance_norm(
    x: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
    *,
    sums: Sums,
) -> Tensor:
    shape = (1, -1, *(1,) * (x.dim() - 2))
    result = _centred(x, tuple(range(2, x.dim())), epsilon, sums)
    return _scaled(result, gamma, beta, shape)


@TABLE.op
def layer_norm(
    x: Tensor,
    axes: Ints | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
    *,
    sums: Sums,
) -> Tensor:
    rank = x.dim()
    normal = sorted({axis % rank for axis in (range(rank) if axes is None else axes)})
    if sums.exact and normal == list(range(normal[0], rank)):
        return F.layer_norm(x, x.shape[normal[0] :], gamma, beta, epsilon)
    shape = [x.shape[axis] if axis in normal else 1 for axis in range(rank)]
    return _scaled(_centred(x, normal, epsilon, sums), gamma, beta, shape)


@TABLE.op
def l2_norm(x: Tensor, epsilon: float = 1e-6, *, sums: Sums) -> Tensor:
    squares = _each(x * x, sums)
    return x / (sums.total(squares, (-3, -2, -1)) + epsilon).sqrt()


@TABLE.op
def local_response_norm(
    x: Tensor,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    sums: Sums,
) -> Tensor:
    # the docstring has channels second, but tests on Apple's machines third from the end
    if x.dim() not in (3, 4):
        raise ValueError(f"local response normalisation of rank {x.dim()}")
    # as PyTorch has it, an even window begins one channel earlier
    margins = [0, 0, 0, 0, size // 2, (size - 1) // 2]
    squares = F.pad(_each(x * x, sums), margins).unfold(-3, size, 1)
    total = sums.total(squares, (-1,)).squeeze(-1)
    return x / (k + alpha / size * total) ** beta


def _centred(x: Tensor, axes: Sequence[int], epsilon: float, sums: Sums) -> Tensor:
    """Take off the mean over `axes` and divide by the deviation."""
    if sums.exact:
        variance, mean = torch.var_mean(x, dim=tuple(axes), correction=0, keepdim=True)
        return (x - mean) / (variance + epsilon).sqrt()
    count = math.prod(x.shape[axis] for axis in axes)
    difference = rounded(x - rounded(sums.total(x, axes) / count))
    squares = rounded(difference * difference)
    return difference / (rounded(sums.total(squares, axes) / count) + epsilon).sqrt()


def _scaled(x: Tensor, gamma: Tensor | None, beta: Tensor | None, shape: Sequence[int]) -> Tensor:
    x = x if gamma is None else x * gamma.reshape(shape)
    return x if beta is None else x + beta.reshape(shape)


def _each(x: Tensor, sums: Sums) -> Tensor:
    return x if sums.exact else rounded(x)

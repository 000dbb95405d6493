"""Pooling over one, two and three axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from phoneward.runtime.engines.mil.numerics import Sums, rounded
from phoneward.runtime.engines.mil.ops.windows import Both, backwards, pads, symmetric, windows
from phoneward.runtime.engines.mil.signature import Ints, Table

TABLE = Table()

_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_LARGEST = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


@TABLE.op
def avg_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
    *,
    sums: Sums,
) -> Tensor:
    axes = len(kernel_sizes)
    strides = strides or (1,) * axes
    both = pads(x.shape[2:], kernel_sizes, strides, pad_type, pad)
    beyond = _beyond(x.shape[2:], kernel_sizes, strides, both, ceil_mode)
    even = _within_half(both, kernel_sizes)
    include = not exclude_padding_from_average
    if sums.exact and even is not None:
        return _AVERAGE[axes](x, kernel_sizes, strides, even, ceil_mode, include)
    values = _windows_of(x, kernel_sizes, strides, (both, beyond), 0.0)
    counted = torch.ones(1, 1, *x.shape[2:])
    if include:
        # what rounding up adds at the end is never counted
        counted = F.pad(counted, backwards(both), value=1.0)
        ones = _windows_of(counted, kernel_sizes, strides, (beyond,), 0.0)
    else:
        ones = _windows_of(counted, kernel_sizes, strides, (both, beyond), 0.0)
    within = tuple(range(2 + axes, 2 + 2 * axes))
    total = sums.total(values, within).flatten(2 + axes).squeeze(-1)
    return total / ones.sum(dim=within)


@TABLE.op
def l2_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
    *,
    sums: Sums,
) -> Tensor:
    axes = len(kernel_sizes)
    strides = strides or (1,) * axes
    both = pads(x.shape[2:], kernel_sizes, strides, pad_type, pad)
    beyond = _beyond(x.shape[2:], kernel_sizes, strides, both, ceil_mode)
    squares = x * x if sums.exact else rounded(x * x)
    values = _windows_of(squares, kernel_sizes, strides, (both, beyond), 0.0)
    total = sums.total(values, tuple(range(2 + axes, 2 + 2 * axes)))
    return total.flatten(2 + axes).squeeze(-1).sqrt()


@TABLE.mover
def max_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    axes = len(kernel_sizes)
    strides = strides or (1,) * axes
    both = pads(x.shape[2:], kernel_sizes, strides, pad_type, pad)
    beyond = _beyond(x.shape[2:], kernel_sizes, strides, both, ceil_mode)
    even = _within_half(both, kernel_sizes)
    if even is not None:
        return _LARGEST[axes](x, kernel_sizes, strides, even, 1, ceil_mode)
    for amounts in (both, beyond):
        x = F.pad(x, backwards(amounts), value=-math.inf)
    return _LARGEST[axes](x, kernel_sizes, strides)


def _within_half(both: Both, kernel: Sequence[int]) -> tuple[int, ...] | None:
    """Padding that PyTorch's pools take: the same at both ends and at most half a window."""
    even = symmetric(both)
    if even is None or any(2 * amount > k for amount, k in zip(even, kernel, strict=True)):
        return None
    return even


def _beyond(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], both: Both, ceil: bool
) -> Both:
    """How far past the padding the last window reaches where the number is rounded up.

    Raises:
        ValueError: a window lies past the end, which Core ML allows where there is no padding.
    """
    if not ceil:
        return [(0, 0)] * len(sizes)
    extra = []
    for size, k, stride, (before, after) in zip(sizes, kernel, strides, both, strict=True):
        padded = size + before + after
        count = -(-(padded - k) // stride) + 1
        # no window begins in the padding at the end
        if (count - 1) * stride >= size + before:
            if before + after == 0:
                raise ValueError(f"ceil_mode: window {count} of {k} is past the end of {size}")
            count -= 1
        extra.append((0, max((count - 1) * stride + k - padded, 0)))
    return extra


def _windows_of(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    paddings: Sequence[Both],
    value: float,
) -> Tensor:
    for both in paddings:
        x = F.pad(x, backwards(both), value=value)
    return windows(x, kernel, strides)

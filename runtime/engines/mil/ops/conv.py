"""Convolutions over one, two and three axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from phoneward.runtime.engines.mil.numerics import Sums
from phoneward.runtime.engines.mil.ops.windows import backwards, pads, symmetric, windows
from phoneward.runtime.engines.mil.signature import Ints, Table

TABLE = Table()

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@TABLE.op
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
    *,
    sums: Sums,
) -> Tensor:
    axes = x.dim() - 2
    strides, dilations = strides or (1,) * axes, dilations or (1,) * axes
    both = pads(x.shape[2:], weight.shape[2:], strides, pad_type, pad, dilations)
    even = symmetric(both)
    if sums.exact and even is not None:
        return _CONV[axes](x, weight, bias, strides, even, dilations, groups)
    padded = F.pad(x, backwards(both))
    if sums.exact:
        return _CONV[axes](padded, weight, bias, strides, 0, dilations, groups)
    return _with_bias(_summed(padded, weight, strides, dilations, groups, sums), bias)


@TABLE.op
def conv_quantized(
    x: Tensor,
    weight: Tensor,
    quantization_type: str,
    quant_scale: Tensor,
    quant_bias: Tensor,
    bias: Tensor | None = None,
    nbits: int = 8,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
    *,
    sums: Sums,
) -> Tensor:
    # of look-up tables coremltools does not say where the table is; a bias is of quantized values
    if quantization_type != "linear":
        raise ValueError(f"quantization_type '{quantization_type}' is not supported")
    if bias is not None:
        raise ValueError("a quantized bias is not supported: its scale is not documented")
    ones = (1,) * (weight.dim() - 1)
    scale, zero = (
        value.reshape(-1, *ones) if value.numel() > 1 else value.reshape(())
        for value in (quant_scale, quant_bias)
    )
    floats = weight * scale + zero
    return conv(x, floats, None, strides, pad_type, pad, dilations, groups, sums=sums)


@TABLE.op
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
    *,
    sums: Sums,
) -> Tensor:
    axes = x.dim() - 2
    strides, dilations = strides or (1,) * axes, dilations or (1,) * axes
    full = [
        (size - 1) * stride + (k - 1) * dilation + 1
        for size, k, stride, dilation in zip(
            x.shape[2:], weight.shape[2:], strides, dilations, strict=True
        )
    ]
    wanted = None if output_shape is None else output_shape[2:]
    if wanted is None and pad_type == "same":
        wanted = tuple(size * stride for size, stride in zip(x.shape[2:], strides, strict=True))
    # what a convolution of the output would pad is cut off
    both = pads(wanted or full, weight.shape[2:], strides, pad_type, pad, dilations)
    if wanted is not None:
        both = [
            (before, length - before - size)
            for (before, _), length, size in zip(both, full, wanted, strict=True)
        ]
    even = symmetric(both)
    if sums.exact and even is not None:
        return _TRANSPOSED[axes](x, weight, bias, strides, even, 0, groups, dilations)
    if sums.exact:
        whole = _TRANSPOSED[axes](x, weight, None, strides, 0, 0, groups, dilations)
    else:
        spread, flipped = _as_conv(x, weight, strides, dilations, groups)
        whole = _summed(spread, flipped, (1,) * axes, dilations, groups, sums)
    return _with_bias(F.pad(whole, [-amount for amount in backwards(both)]), bias)


def _with_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias.reshape(-1, *(1,) * (x.dim() - 2))


def _summed(
    x: Tensor,
    weight: Tensor,
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
    sums: Sums,
) -> Tensor:
    """Convolution of a padded `x` as one product of matrices per group, added up by `sums`."""
    views = windows(x, weight.shape[2:], strides, dilations)
    axes = x.dim() - 2
    batch, sizes = x.shape[0], views.shape[2 : 2 + axes]
    # (n, channels, *sizes, *kernel) -> (n, groups, channels / groups * kernel, sizes)
    order = (0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes))
    terms = weight[0].numel()
    columns = views.permute(order).reshape(batch, groups, terms, math.prod(sizes))
    rows = weight.reshape(groups, -1, terms)
    return sums.matmul(rows, columns).reshape(batch, weight.shape[0], *sizes)


def _as_conv(
    x: Tensor, weight: Tensor, strides: Sequence[int], dilations: Sequence[int], groups: int
) -> tuple[Tensor, Tensor]:
    """Input and weight of the convolution of stride 1 that equals a transposed one."""
    spatial = x.shape[2:]
    sizes = [(size - 1) * stride + 1 for size, stride in zip(spatial, strides, strict=True)]
    spread = torch.zeros(*x.shape[:2], *sizes)
    spread[(slice(None), slice(None), *(slice(None, None, stride) for stride in strides))] = x
    margins = [
        ((k - 1) * dilation,) * 2 for k, dilation in zip(weight.shape[2:], dilations, strict=True)
    ]
    # (c_in, c_out / groups, *kernel) -> (c_out, c_in / groups, *kernel), back to front
    split = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
    flipped = split.flip(tuple(range(2, weight.dim())))
    return F.pad(spread, backwards(margins)), flipped

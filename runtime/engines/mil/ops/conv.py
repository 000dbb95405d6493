"""Convolutions over one, two and three axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from phoneward.runtime.engines.mil.signature import Ints, Table

TABLE = Table()

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


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
) -> Tensor:
    axes = x.dim() - 2
    strides, dilations = strides or (1,) * axes, dilations or (1,) * axes
    kernel = weight.shape[2:]
    padding = pads(x.shape[2:], kernel, strides, dilations, pad_type, pad)
    return _CONV[axes](F.pad(x, backwards(padding)), weight, bias, strides, 0, dilations, groups)


def pads(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pad_type: str,
    pad: Sequence[int] | None,
) -> list[tuple[int, int]]:
    """Zeros before and after along each axis, by coremltools' rules for `pad_type`."""
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    if pad_type == "custom":
        ends = list(pad or (0,) * (2 * len(sizes)))
        return list(zip(ends[::2], ends[1::2], strict=True))
    both = []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        less, more = total // 2, total - total // 2
        both.append((less, more) if pad_type == "same" else (more, less))
    return both


def backwards(both: Sequence[tuple[int, int]]) -> list[int]:
    """Padding as `torch.nn.functional.pad` takes it: the last axis first."""
    return [amount for ends in reversed(both) for amount in ends]

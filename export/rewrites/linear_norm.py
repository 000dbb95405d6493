"""Layer norm whose means are matrix products, so that it stays inside XNNPACK.

ExecuTorch 1.5's partitioner takes neither `native_layer_norm` nor a mean over the last axis of
tokens: each would end a partition. A mean of channels is a linear layer with equal weights, of a
map's channels a pointwise convolution. Values are scaled before they are squared, so that half
precision holds squares of up to 4,000; in single precision the power of two changes nothing.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from phoneward.export.models.efficienttam.layers import LayerNorm2d
from phoneward.export.rewrites.modules import replace


def apply(model: nn.Module) -> int:
    """Replace every norm of tokens or of a map's channels; returns how many places there were."""
    return replace(model, nn.LayerNorm, LinearNorm) + replace(model, LayerNorm2d, ConvNorm)


_SCALE = 1 / 16


def _normalized(x: Tensor, mean: nn.Module, eps: float) -> Tensor:
    centred = (x - mean(x)) * _SCALE
    # half precision does not hold the scaled epsilon: without it, equal values would give 0 * inf
    floor = max(eps * _SCALE**2, torch.finfo(x.dtype).tiny * torch.finfo(x.dtype).eps)
    return centred * torch.rsqrt(cast(Tensor, mean(centred * centred)) + floor)


class LinearNorm(nn.Module):
    """`nn.LayerNorm` over the last axis of (N, L, C)."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        (channels,) = norm.normalized_shape
        self.mean = nn.Linear(channels, 1, bias=False)
        self.mean.weight = nn.Parameter(torch.full((1, channels), 1 / channels))
        self.mean.requires_grad_(False)
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, L, C) to itself."""
        return _normalized(x, self.mean, self.eps) * self.weight + self.bias


class ConvNorm(nn.Module):
    """`LayerNorm2d` of (N, C, H, W)."""

    def __init__(self, norm: LayerNorm2d) -> None:
        super().__init__()
        channels = norm.weight.shape[0]
        self.mean = nn.Conv2d(channels, 1, 1, bias=False)
        self.mean.weight = nn.Parameter(torch.full((1, channels, 1, 1), 1 / channels))
        self.mean.requires_grad_(False)
        self.register_buffer("weight", norm.weight.detach().view(1, -1, 1, 1))
        self.register_buffer("bias", norm.bias.detach().view(1, -1, 1, 1))
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to itself."""
        return _normalized(x, self.mean, self.eps) * self.weight + self.bias

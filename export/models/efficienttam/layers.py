"""Small layers and position tables that several parts of EfficientTAM share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ROPE_THETA = 10_000.0
_SINE_TEMPERATURE = 10_000.0
EMPTY = -30_000.0
"""Added to logits of what must not be attended to; half precision holds it, and its exp is 0."""


class LayerNorm2d(nn.Module):
    """Normalise the channels of (N, C, H, W) at each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to itself."""
        centred = x - x.mean(1, keepdim=True)
        variance = centred.square().mean(1, keepdim=True)
        scaled = centred * torch.rsqrt(variance + self.eps)
        return scaled * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class MLP(nn.Module):
    """Linear layers with an activation between them."""

    def __init__(self, widths: Sequence[int], activation: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., widths[0]) to (..., widths[-1])."""
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return cast(Tensor, self.layers[-1](x))


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + bias) v of q (B, L, d) and k, v (B, S, d)."""
    logits = torch.bmm(q * (1 / math.sqrt(q.shape[-1])), k.transpose(1, 2))
    if bias is not None:
        logits = logits + bias
    return torch.bmm(logits.softmax(-1), v)


def to_heads(x: Tensor, heads: int) -> Tensor:
    """(N, L, C) as (N * heads, L, C / heads)."""
    n, length, width = x.shape
    return x.reshape(n, length, heads, width // heads).transpose(1, 2).flatten(0, 1)


def from_heads(x: Tensor, heads: int) -> Tensor:
    """(N * heads, L, d) as (N, L, heads * d)."""
    rows, length, depth = x.shape
    split = x.reshape(rows // heads, heads, length, depth).transpose(1, 2)
    return split.reshape(rows // heads, length, heads * depth)


def rotary_tables(grid: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (grid * grid, width), of the axial rotary code.

    The first half of the channels turns with the column, the second with the row; neighbours
    (2i, 2i + 1) share an angle (RoPE, arXiv 2104.09864; axial as in rope-vit, arXiv 2403.13298).
    """
    frequencies = _ROPE_THETA ** -(torch.arange(0, width, 4, dtype=torch.float32) / width)
    position = torch.arange(grid * grid)
    columns = torch.outer((position % grid).float(), frequencies)
    rows = torch.outer((position // grid).float(), frequencies)
    angles = torch.cat((columns, rows), dim=-1).repeat_interleave(2, dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of channels of (N, L, C) by its angle; the tables are (L, C)."""
    pairs = x.unflatten(-1, (-1, 2))
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    return x * cosines + turned * sines


def sine_positions(grid: int, channels: int) -> Tensor:
    """Sine code of the pixels' centres as tokens, (grid * grid, channels): rows, then columns."""
    half = channels // 2
    place = torch.arange(1, grid + 1, dtype=torch.float32) / (grid + 1e-6) * (2 * math.pi)
    exponents = 2 * (torch.arange(half, dtype=torch.float32) // 2) / half
    angles = place[:, None] / _SINE_TEMPERATURE**exponents
    code = torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), dim=2).flatten(1)
    rows = code[:, None, :].expand(grid, grid, half)
    columns = code[None, :, :].expand(grid, grid, half)
    return torch.cat((rows, columns), dim=-1).reshape(grid * grid, channels)


def resize_matrix(to: int, size: int, *, antialias: bool) -> Tensor:
    """The (to, size) matrix of bilinear resizing along one axis, pixel centres at half."""
    square = torch.eye(size)[None, None]
    return F.interpolate(
        square, (to, size), mode="bilinear", align_corners=False, antialias=antialias
    )[0, 0]


def one_hot(values: Tensor, first: int, count: int) -> Tensor:
    """Compare (B, N) whole numbers with first, first + 1, ...: (B, N, count) of 0 and 1."""
    wanted = torch.arange(first, first + count, dtype=values.dtype)
    return torch.relu(1 - (values.unsqueeze(-1) - wanted).abs())


def to_map(tokens: Tensor, grid: int) -> Tensor:
    """(N, grid * grid, C) tokens as a (N, C, grid, grid) map."""
    return tokens.transpose(1, 2).reshape(-1, tokens.shape[-1], grid, grid)


def to_tokens(features: Tensor) -> Tensor:
    """(N, C, H, W) map as (N, H * W, C) tokens."""
    return features.flatten(2).transpose(1, 2)

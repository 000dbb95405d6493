"""Image encoder: a plain vision transformer with windows (ViTDet, arXiv 2203.16527) and a neck."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phoneward.export.models.efficienttam.layers import (
    MLP,
    LayerNorm2d,
    attend,
    from_heads,
    to_heads,
    to_tokens,
)
from phoneward.export.models.efficienttam.lite0_trunk import Lite0Trunk
from phoneward.export.models.efficienttam.variants import STRIDE, Variant, Widths

_DEPTH = 12
WINDOW = 14
_GLOBAL_BLOCKS = (2, 5, 8, 11)
_PRETRAINED_GRID = 14


class Attention(nn.Module):
    """Multi-head self-attention inside each window."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (windows, L, C) to itself."""
        q, k, v = (to_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        return cast(Tensor, self.proj(from_heads(attend(q, k, v), self.heads)))


class Block(nn.Module):
    """Attention and MLP, each after a norm; attention over all tokens or in 14 x 14 windows.

    Windows that stick out of the image are filled with zeros, which take part in attention as
    they do in the official model: their keys and values are the projections' biases.
    """

    def __init__(self, width: int, heads: int, *, windowed: bool) -> None:
        super().__init__()
        self.windowed = windowed
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP((width, 4 * width, width), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to itself."""
        count, height, width, channels = x.shape
        y = self.norm1(x)
        if self.windowed:
            y = _from_windows(self.attn(_to_windows(y)), count, height, width)
        else:
            y = self.attn(y.reshape(count, -1, channels)).reshape(count, height, width, channels)
        x = x + y
        return cast(Tensor, x + self.mlp(self.norm2(x)))


def _to_windows(x: Tensor) -> Tensor:
    count, height, width, channels = x.shape
    rows, columns = -(-height // WINDOW), -(-width // WINDOW)
    x = F.pad(x, (0, 0, 0, columns * WINDOW - width, 0, rows * WINDOW - height))
    x = x.reshape(count * rows, WINDOW, columns, WINDOW * channels).transpose(1, 2)
    return x.reshape(count * rows * columns, WINDOW * WINDOW, channels)


def _from_windows(windows: Tensor, count: int, height: int, width: int) -> Tensor:
    channels = windows.shape[-1]
    rows, columns = -(-height // WINDOW), -(-width // WINDOW)
    x = windows.reshape(count * rows, columns, WINDOW, WINDOW * channels).transpose(1, 2)
    return x.reshape(count, rows * WINDOW, columns * WINDOW, channels)[:, :height, :width]


class PatchEmbedding(nn.Module):
    """Patches of 16 x 16 pixels to tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, STRIDE, STRIDE)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, H / 16, W / 16, C)."""
        return cast(Tensor, self.proj(image)).permute(0, 2, 3, 1)


class Trunk(nn.Module):
    """The transformer; its last block's output is taken without a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width = width
        # the place of the class token comes first
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + _PRETRAINED_GRID**2, width))
        self.patch_embed = PatchEmbedding(width)
        self.blocks = nn.ModuleList(
            Block(width, heads, windowed=i not in _GLOBAL_BLOCKS) for i in range(_DEPTH)
        )

    def positions(self, grid: int) -> Tensor:
        """The learned positions, bicubically resized to (1, grid, grid, C)."""
        places = self.pos_embed[:, 1:].unflatten(1, (_PRETRAINED_GRID, _PRETRAINED_GRID))
        resized = F.interpolate(
            places.permute(0, 3, 1, 2), (grid, grid), mode="bicubic", align_corners=False
        )
        return resized.permute(0, 2, 3, 1)

    def forward(self, image: Tensor, positions: Tensor) -> Tensor:
        """Map normalised images (N, 3, H, W) to (N, C, H / 16, W / 16)."""
        x = self.patch_embed(image) + positions
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 3, 1, 2)


class Neck(nn.Module):
    """Two convolutions that bring the trunk's channels to those of the features."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        steps = nn.Sequential()
        steps.add_module("conv_1x1", nn.Conv2d(width, channels, 1, bias=False))
        steps.add_module("norm_0", LayerNorm2d(channels))
        steps.add_module("conv_3x3", nn.Conv2d(channels, channels, 3, padding=1, bias=False))
        steps.add_module("norm_1", LayerNorm2d(channels))
        self.convs = nn.ModuleList([steps])

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, H, W) to (N, C, H, W)."""
        return cast(Tensor, self.convs[0](x))


class FineLevels(nn.Module):
    """The trunk's levels of stride 4 and 8, as the mask decoder of SAM 2 takes them.

    Pointwise, so that folded maps stay folded: the places of a block are more rows to it.
    """

    def __init__(self, trunk_widths: tuple[int, int], widths: Widths) -> None:
        super().__init__()
        self.conv_s0 = nn.Conv2d(trunk_widths[0], widths.quarter, 1)
        self.conv_s1 = nn.Conv2d(trunk_widths[1], widths.eighth, 1)

    def forward(self, quarter: Tensor, eighth: Tensor) -> Tensor:
        """Map folded levels (N, 16 * ., g, g) and (N, 4 * ., g, g) to one map (N, F - C, g, g)."""
        levels = ((self.conv_s0, quarter), (self.conv_s1, eighth))
        return torch.cat([_pointwise(*each) for each in levels], dim=1)


def _pointwise(convolution: nn.Conv2d, folded: Tensor) -> Tensor:
    rows = folded.shape[2]
    mapped = convolution(folded.unflatten(1, (convolution.in_channels, -1)).flatten(2, 3))
    return cast(Tensor, mapped.unflatten(2, (-1, rows)).flatten(1, 2))


class ImageEncoder(nn.Module):
    """Image to features; `positions` is `trunk.positions(grid)`, a constant of the graph."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.trunk: Trunk | Lite0Trunk
        if variant.trunk == "lite0":
            self.trunk = Lite0Trunk()
        else:
            self.trunk = Trunk(variant.embedding, variant.heads)
        self.neck = Neck(self.trunk.width, variant.widths.channels)
        self.fine = None
        if variant.widths.fine:
            self.fine = FineLevels(Lite0Trunk.fine_widths, variant.widths)

    def forward(self, image: Tensor, positions: Tensor) -> Tensor:
        """Map normalised images to features (N, T, F)."""
        return self.features(self.trunk(image, positions))

    def features(self, maps: Tensor) -> Tensor:
        """Map what the trunk gives to features (N, T, F)."""
        coarse = self.neck(maps)
        if self.fine is None:
            return to_tokens(coarse)
        quarter, eighth, _ = cast(Lite0Trunk, self.trunk).levels(maps)
        return to_tokens(torch.cat((coarse, self.fine(quarter, eighth)), dim=1))

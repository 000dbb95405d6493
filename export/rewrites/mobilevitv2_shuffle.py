"""MobileViTv2 blocks on maps in the fewest ops, for converters that keep shuffles and layer norms.

Before: (B, C, H, W) -> six-axis unfold -> (B, C, 4, N) -> per layer GroupNorm(1) as nine ops, one
1x1 convolution and a split, (key * score).sum, relu(value) * expanded context -> the same way back.
After: `pixel_unshuffle` -> (B, C, 4, N) -> the same layers with GroupNorm(1) as one layer norm over
(C, 4, N), its affine in the convolutions that read it, and the key convolution after the pooling
(`mobilevitv2_tokens` says why that is the same) -> `pixel_shuffle`; nothing above rank 4.
"""

from __future__ import annotations

import torch
from timm.models.mobilevit import LinearTransformerBlock, MobileVitV2Block
from torch import Tensor, nn
from torch.nn import functional as F

from phoneward.export.rewrites.mobilevit_shuffle import ShuffledGrid
from phoneward.export.rewrites.mobilevit_tokens import replace, resized
from phoneward.export.rewrites.mobilevitv2_tokens import absorbed, pointwise, with_affine


class MapNorm(nn.Module):
    """(B, C, P, N) -> zero mean and unit variance over all but B, GroupNorm(1) without affine."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over (C, P, N)."""
        return F.layer_norm(x, x.shape[1:], eps=self.eps)


class MapTransformer(nn.Module):
    """A `LinearTransformerBlock` without dropout, (B, C, P, N) -> (B, C, P, N)."""

    def __init__(self, source: LinearTransformerBlock) -> None:
        super().__init__()
        attention, width = source.attn, source.attn.embed_dim
        self.norm1, self.norm2 = MapNorm(source.norm1.eps), MapNorm(source.norm2.eps)
        weight, bias = absorbed(attention.qkv_proj, source.norm1)
        self.score = pointwise(weight[:1], None)
        self.key = pointwise(weight[1 : 1 + width], bias[1 : 1 + width])
        self.value = pointwise(weight[1 + width :], bias[1 + width :])
        self.proj = attention.out_proj
        self.fc1 = with_affine(source.mlp.fc1, source.norm2)
        self.act, self.fc2 = source.mlp.act, source.mlp.fc2

    def forward(self, x: Tensor) -> Tensor:
        """Add separable attention over N, then the feed-forward network."""
        x = x + self._attend(self.norm1(x))
        out: Tensor = x + self.fc2(self.act(self.fc1(self.norm2(x))))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        pooled = (x * self.score(x).softmax(-1)).sum(-1, keepdim=True)
        mixed: Tensor = self.proj(torch.relu(self.value(x)) * self.key(pooled))
        return mixed


class MapBlock(nn.Module):
    """A `MobileVitV2Block` of square patches, (B, C, H, W) -> (B, C', H, W)."""

    def __init__(self, source: MobileVitV2Block) -> None:
        super().__init__()
        self.conv_kxk, self.conv_1x1 = source.conv_kxk, source.conv_1x1
        self.layers = nn.Sequential(*(MapTransformer(layer) for layer in source.transformer))
        self.norm = MapNorm(source.norm.eps)
        self.conv_proj = source.conv_proj
        self.conv_proj.conv = with_affine(self.conv_proj.conv, source.norm)
        self.patch = source.patch_size

    def forward(self, x: Tensor) -> Tensor:
        """Mix locally, then among the pixels with one offset."""
        height, width = x.shape[-2:]
        ph, pw = self.patch
        grid = ShuffledGrid(-(-height // ph) * ph, -(-width // pw) * pw, ph, pw)
        x = self.conv_1x1(self.conv_kxk(resized(x, grid.height, grid.width, align_corners=True)))
        x = self.norm(self.layers(grid.unfold_maps(x)))
        out: Tensor = self.conv_proj(grid.fold_maps(x))
        return out


def apply(model: nn.Module) -> int:
    """Replace every `MobileVitV2Block`; returns how many."""
    return replace(model, MobileVitV2Block, MapBlock)

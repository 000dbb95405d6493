"""MobileViT blocks in the fewest ops, for converters that keep shuffles and transposed products.

Before: (B, C, H, W) -> six-axis unfold through (B * C * H/2, W/2, 2, 2) -> transformer on
(B * 4, N, C) -> the same way back; attention splits (B, N, 3, heads, d) on rank 5.
After: (B, C, H, W) -> `pixel_unshuffle` -> (B, C, 4, N) -> one transpose -> (B * 4, N, C) ->
transformer with `FusedAttention` -> one transpose and `pixel_shuffle` back; nothing above rank 4.
"""

from __future__ import annotations

import torch
from timm.layers import Attention
from timm.models.mobilevit import MobileVitBlock
from torch import Tensor, nn
from torch.nn import functional as F

from phoneward.export.rewrites.mobilevit_tokens import TokenBlock, replace
from phoneward.export.rewrites.token_attention import TokenAttention, linear
from phoneward.export.rewrites.token_patches import PatchGrid


class FusedAttention(nn.Module):
    """(B, N, C) -> (B, N, C) with one projection, one transpose in and one out.

    Keys stay (heads, N, d): the product reads them transposed, which Core ML's `matmul` and ONNX
    Runtime's GEMM do for free. The constants are where `TokenAttention` puts them.
    """

    def __init__(self, source: Attention) -> None:
        super().__init__()
        parts = TokenAttention(source)
        self.heads, self.head_dim = parts.heads, parts.head_dim
        none = torch.zeros_like(parts.query.bias)
        self.qkv = linear(
            torch.cat([parts.query.weight, parts.key.weight, parts.value.weight]),
            torch.cat([parts.query.bias, none, none]),
        )
        self.proj = parts.proj

    def forward(self, x: Tensor) -> Tensor:
        """Attend among the N tokens of each of B groups."""
        groups, tokens, _ = x.shape
        rows = self.qkv(x).reshape(groups, tokens, 3 * self.heads, self.head_dim)
        q, k, v = rows.permute(0, 2, 1, 3).split(self.heads, dim=1)
        mixed = torch.matmul(torch.matmul(q, k.transpose(2, 3)).softmax(-1), v)
        mixed = mixed.permute(0, 2, 1, 3).reshape(groups, tokens, self.heads * self.head_dim)
        out: Tensor = self.proj(mixed)
        return out


class ShuffledGrid(PatchGrid):
    """A `PatchGrid` of square patches by `pixel_unshuffle`; the same values in the same places."""

    def unfold(self, maps: Tensor) -> Tensor:
        """Turn (B, C, H, W) into (B, P, N, C)."""
        return self.unfold_maps(maps).permute(0, 2, 3, 1)

    def fold(self, tokens: Tensor) -> Tensor:
        """Turn (B, P, N, C) into (B, C, H, W)."""
        return self.fold_maps(tokens.permute(0, 3, 1, 2))

    def unfold_maps(self, maps: Tensor) -> Tensor:
        """Turn (B, C, H, W) into (B, C, P, N)."""
        shuffled = F.pixel_unshuffle(maps, self.patch_height)
        return shuffled.reshape(maps.shape[0], maps.shape[1], self.offsets, self.patches)

    def fold_maps(self, maps: Tensor) -> Tensor:
        """Turn (B, C, P, N) into (B, C, H, W)."""
        batch, channels = maps.shape[:2]
        rows, columns = self.height // self.patch_height, self.width // self.patch_width
        shuffled = maps.reshape(batch, channels * self.offsets, rows, columns)
        return F.pixel_shuffle(shuffled, self.patch_height)


class ShuffledBlock(TokenBlock):
    """A `MobileVitBlock` of square patches, (B, C, H, W) -> (B, C', H, W)."""

    grid = ShuffledGrid
    attention = FusedAttention


def apply(model: nn.Module) -> int:
    """Replace every `MobileVitBlock`; returns how many."""
    return replace(model, MobileVitBlock, ShuffledBlock)

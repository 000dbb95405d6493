"""MobileViT blocks on rank-4 tokens with explicit attention.

Before: (B, C, H, W) -> six-axis unfold through (B * C * H/2, W/2, 2, 2) -> transformer on
(B * 4, N, C) with fused attention -> the same way back.
After: (B, C, H, W) -> `PatchGrid.unfold` -> (B, 4, N, C) -> transformer on (B * 4, N, C) with
`TokenAttention` -> `PatchGrid.fold`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers import Attention
from timm.models.mobilevit import MobileVitBlock
from torch import Tensor, nn
from torch.nn import functional as F

from phoneward.export.rewrites.token_attention import TokenAttention
from phoneward.export.rewrites.token_patches import PatchGrid


class TokenTransformer(nn.Module):
    """A pre-norm transformer layer, (B, N, C) -> (B, N, C)."""

    def __init__(self, source: nn.Module, attention: Callable[[Attention], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = source.norm1, source.norm2
        self.attention = attention(source.attn)
        self.fc1, self.act, self.fc2 = source.mlp.fc1, source.mlp.act, source.mlp.fc2

    def forward(self, x: Tensor) -> Tensor:
        """Add attention, then the feed-forward network."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.fc2(self.act(self.fc1(self.norm2(x))))
        return out


class TokenBlock(nn.Module):
    """A `MobileVitBlock`, (B, C, H, W) -> (B, C', H, W); subclasses choose the two classes."""

    grid: type[PatchGrid] = PatchGrid
    attention: type[nn.Module] = TokenAttention

    def __init__(self, source: MobileVitBlock) -> None:
        super().__init__()
        self.conv_kxk, self.conv_1x1 = source.conv_kxk, source.conv_1x1
        self.layers = nn.Sequential(
            *(TokenTransformer(layer, self.attention) for layer in source.transformer)
        )
        self.norm = source.norm
        self.conv_proj, self.conv_fusion = source.conv_proj, source.conv_fusion
        self.patch = source.patch_size

    def forward(self, x: Tensor) -> Tensor:
        """Mix locally, then among the pixels with one offset, then with the shortcut."""
        shortcut = x
        x = self.conv_1x1(self.conv_kxk(x))
        height, width = x.shape[-2:]
        ph, pw = self.patch
        grid = self.grid(-(-height // ph) * ph, -(-width // pw) * pw, ph, pw)
        x = resized(x, grid.height, grid.width, align_corners=False)
        tokens = grid.unfold(x)
        flat = self.norm(self.layers(tokens.flatten(0, 1)))
        x = grid.fold(flat.reshape(tokens.shape))
        x = self.conv_proj(resized(x, height, width, align_corners=False))
        if self.conv_fusion is not None:
            x = self.conv_fusion(torch.cat((shortcut, x), dim=1))
        return x


def apply(model: nn.Module) -> int:
    """Replace every `MobileVitBlock`; returns how many."""
    return replace(model, MobileVitBlock, TokenBlock)


def replace(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> int:
    """Put `new(block)` in the place of every `old` in `model`; returns how many."""
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, old)
    ]
    for parent, name, child in found:
        setattr(parent, name, new(child).eval())
    return len(found)


def resized(x: Tensor, height: int, width: int, *, align_corners: bool) -> Tensor:
    """Resize (B, C, H, W) bilinearly; nothing is traced when the size is right already."""
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=align_corners)

"""Memory encoder: features and a mask become a memory of the frame."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from phoneward.export.models.efficienttam.layers import LayerNorm2d, to_map
from phoneward.export.models.efficienttam.variants import Widths

_BLOCKS = 2


class MaskDownsampler(nn.Module):
    """Four convolutions of stride 2 from the mask at image size to the features' grid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential()
        before = 1
        for _ in range(4):
            after = min(4 * before, channels)
            self.encoder.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            self.encoder.append(LayerNorm2d(after))
            self.encoder.append(nn.GELU())
            before = after
        self.encoder.append(nn.Conv2d(before, channels, 1))

    def forward(self, mask: Tensor) -> Tensor:
        """Map (N, 1, H, W) to (N, C, H / 16, W / 16)."""
        return cast(Tensor, self.encoder(mask))


class ConvNextBlock(nn.Module):
    """Depthwise 7 x 7, norm, and two pointwise layers (ConvNeXt, arXiv 2201.03545)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = LayerNorm2d(channels)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to itself."""
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    """The blocks that mix features and mask."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvNextBlock(channels) for _ in range(_BLOCKS))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to itself."""
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """Features and a scaled mask to the few channels of a memory."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        channels = widths.channels
        self.mask_downsampler = MaskDownsampler(channels)
        self.pix_feat_proj = nn.Conv2d(channels, channels, 1)
        self.fuser = Fuser(channels)
        self.out_proj = nn.Conv2d(channels, widths.memory, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Map features (N, T, C) and masks (N, 1, 16 g, 16 g) to (N, M, T)."""
        seen = self.mask_downsampler(mask)
        mixed = self.pix_feat_proj(to_map(features, seen.shape[2])) + seen
        return cast(Tensor, self.out_proj(self.fuser(mixed))).flatten(2)

"""Memory encoder: features and a mask become a memory of the frame."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from phoneward.export.models.efficienttam.layers import LayerNorm2d, to_map
from phoneward.export.models.efficienttam.variants import CHANNELS, MEMORY_CHANNELS

_BLOCKS = 2


class MaskDownsampler(nn.Module):
    """Four convolutions of stride 2 from the mask at image size to the features' grid."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential()
        channels = 1
        for _ in range(4):
            self.encoder.append(nn.Conv2d(channels, 4 * channels, 3, stride=2, padding=1))
            channels *= 4
            self.encoder.append(LayerNorm2d(channels))
            self.encoder.append(nn.GELU())
        self.encoder.append(nn.Conv2d(channels, CHANNELS, 1))

    def forward(self, mask: Tensor) -> Tensor:
        """Map (1, 1, H, W) to (1, 256, H / 16, W / 16)."""
        return cast(Tensor, self.encoder(mask))


class ConvNextBlock(nn.Module):
    """Depthwise 7 x 7, norm, and two pointwise layers (ConvNeXt, arXiv 2201.03545)."""

    def __init__(self) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(CHANNELS, CHANNELS, 7, padding=3, groups=CHANNELS)
        self.norm = LayerNorm2d(CHANNELS)
        self.pwconv1 = nn.Linear(CHANNELS, 4 * CHANNELS)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * CHANNELS, CHANNELS)
        self.gamma = nn.Parameter(torch.full((CHANNELS,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, 256, H, W) to itself."""
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    """The blocks that mix features and mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvNextBlock() for _ in range(_BLOCKS))

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, 256, H, W) to itself."""
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """Features and a scaled mask to 64 channels of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownsampler()
        self.pix_feat_proj = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.fuser = Fuser()
        self.out_proj = nn.Conv2d(CHANNELS, MEMORY_CHANNELS, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Map features (1, T, 256) and a mask (1, 1, 16 g, 16 g) to (1, 64, T)."""
        seen = self.mask_downsampler(mask)
        mixed = self.pix_feat_proj(to_map(features, seen.shape[2])) + seen
        return cast(Tensor, self.out_proj(self.fuser(mixed))).flatten(2)

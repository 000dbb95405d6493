"""Normalisation of channel-last images a row at a time.

Before: `x * scale + shift` with three scales and shifts; on channel-last data XNNPACK repeats them
with an inner loop of three elements.
After: rows of `W * C` elements, times the scales repeated `W` times. On 224 x 224 pixels that takes
3 % off EfficientFormer L1 and EfficientFormerV2 S0 in LiteRT. Shapes are unchanged.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from phoneward.export.models.normalize import ChannelAffine
from phoneward.export.rewrites.modules import replace


class RowAffine(nn.Module):
    """`ChannelAffine` whose arithmetic is on (1, H, W * C)."""

    def __init__(self, source: ChannelAffine) -> None:
        super().__init__()
        # repeated here, so that the graph has constants of whole rows
        self.register_buffer("scale", cast(Tensor, source.scale).flatten().repeat(source.width))
        self.register_buffer("shift", cast(Tensor, source.shift).flatten().repeat(source.width))

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift (1, C, H, W)."""
        _, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(1, height, width * channels)
        rows = rows * cast(Tensor, self.scale) + cast(Tensor, self.shift)
        return rows.reshape(1, height, width, channels).permute(0, 3, 1, 2)


def apply(model: nn.Module) -> int:
    """Replace every `ChannelAffine`; returns how many."""
    return replace(model, ChannelAffine, lambda one: RowAffine(cast(ChannelAffine, one)))

"""Image normalisation as the first layer of a graph, so that hosts feed RGB 0 to 255."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn


class ChannelAffine(nn.Module):
    """`x * scale + shift` with one scale and one shift a channel; (1, C, H, width) to itself."""

    def __init__(self, scale: Tensor, shift: Tensor, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", shift.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift (1, C, H, width)."""
        return x * cast(Tensor, self.scale) + cast(Tensor, self.shift)


class Normalized(nn.Module):
    """`body((image / 255 - mean) / std)` as one multiply and one add.

    Before: `body` takes (1, 3, H, width) float32, normalised.
    After: takes (1, 3, H, width) float32, RGB 0 to 255.
    """

    def __init__(
        self, body: nn.Module, mean: Sequence[float], std: Sequence[float], width: int
    ) -> None:
        super().__init__()
        m, s = torch.tensor(mean), torch.tensor(std)
        self.normalize = ChannelAffine(1 / (255 * s), -m / s, width)
        self.body = body

    def forward(self, image: Tensor) -> Tensor:
        """Map (1, 3, H, W) RGB 0-255 to the body's output."""
        return cast(Tensor, self.body(self.normalize(image)))

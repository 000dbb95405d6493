"""Image normalisation as the first layer of a graph, so that hosts feed RGB 0 to 255."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn


class Normalized(nn.Module):
    """`body((image / 255 - mean) / std)` as one multiply and one add.

    Before: `body` takes (1, 3, H, W) float32, normalised.
    After: takes (1, 3, H, W) float32, RGB 0 to 255.
    """

    def __init__(self, body: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        m, s = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)
        self.body = body
        self.register_buffer("scale", 1 / (255 * s))
        self.register_buffer("shift", -m / s)

    def forward(self, image: Tensor) -> Tensor:
        """Map (1, 3, H, W) RGB 0-255 to the body's output."""
        scale, shift = cast(Tensor, self.scale), cast(Tensor, self.shift)
        return cast(Tensor, self.body(image * scale + shift))

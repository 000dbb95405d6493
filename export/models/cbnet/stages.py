"""The networks of this family cut into stages that take grey images from 0 to 255."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from torch import Tensor, nn

from phoneward.export.models.cbnet.networks import BranchyNet, CBNet
from phoneward.export.models.cbnet.specs import SIDE
from phoneward.export.models.normalize import Normalized

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WHITE = 255.0


class GreyStage(Normalized):
    """`body(image / 255)`, and images that its weights were made for.

    `samples` (S, 28, 28) uint8 came with the weights; None: nothing came.
    """

    def __init__(self, body: nn.Module, samples: NDArray[np.uint8] | None = None) -> None:
        super().__init__(body, (0.0,), (1.0,), SIDE)
        self.samples = samples


class Convert(nn.Module):
    """CBNet as one graph: the converted image, from 0 to 255, is its second output."""

    def __init__(self, model: CBNet) -> None:
        super().__init__()
        self.model = model

    @property
    def first_layer(self) -> nn.Linear:
        """The layer that reads the image."""
        return cast(nn.Linear, self.model.autoencoder.encoder[0])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and converted images."""
        logits, converted = self.model(x)
        return logits, converted * _WHITE


class Exit(nn.Module):
    """BranchyNet as far as its exit; the features are what `Finish` goes on with."""

    def __init__(self, model: BranchyNet) -> None:
        super().__init__()
        self.stem, self.branch = model.stem, model.branch

    @property
    def first_layer(self) -> nn.Conv2d:
        """The layer that reads the image."""
        return self.stem.conv

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and features."""
        features = self.stem(x)
        return self.branch(features), features

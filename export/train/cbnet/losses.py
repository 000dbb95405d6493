"""The losses: of an exit and an end together, and of images converted to the easiest of a class."""

from __future__ import annotations

from typing import cast

from torch import Tensor
from torch.nn import functional as F

from phoneward.export.models.cbnet.networks import Autoencoder, BranchyNet

ACTIVITY = 1e-7
"""Weight of the sum of absolute activities of the inner layers (CBNet's notebook for KMNIST)."""


def joint(model: BranchyNet, images: Tensor, classes: Tensor) -> Tensor:
    """Cross entropy at the exit plus that at the end (arXiv 1709.01686, equation 2, weights 1)."""
    early, late = model(images)
    return F.cross_entropy(early, classes) + F.cross_entropy(late, classes)


def conversion(model: Autoencoder, images: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy a pixel against `targets` (N, 784), 0 to 1, plus `ACTIVITY`.

    `images` are (N, 1, 28, 28), 0 to 1. The activities of an image are summed over all inner
    layers, then averaged over images, as Keras does it.
    """
    activities = model.encode(images.flatten(1))
    converted = model.decode(activities[-1])
    activity = sum(cast(Tensor, layer.abs().sum(1).mean()) for layer in activities)
    return F.binary_cross_entropy(converted, targets) + ACTIVITY * activity

"""LeNet, BranchyNet, the light network, the converting autoencoder and CBNet, in PyTorch.

All take grey images (N, 1, 28, 28) float32, 0 to 1, and return logits (N, K).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from phoneward.export.models.cbnet.settings import LightSize
from phoneward.export.models.cbnet.specs import SIDE

PIXELS = SIDE * SIDE
_PUBLISHED = LightSize()


class RectifiedPool(nn.Module):
    """Rectify, then the maximum over 2 x 2: (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)).

    The published code's framework (Chainer) counts a last odd row and column, as here; zeros to
    pad with are no larger than what was rectified.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Halve both sides, rounded up."""
        height, width = x.shape[2:]
        x = F.relu(x)
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        return F.max_pool2d(x, 2, stride=2)


class Stem(nn.Module):
    """What all classifiers share: (N, 1, 28, 28) -> (N, 5, 15, 15) as published.

    With strides (N, stem, 14, 14).
    """

    def __init__(self, size: LightSize = _PUBLISHED) -> None:
        super().__init__()
        pooled = size.downsampling == "pool"
        self.conv = nn.Conv2d(1, size.stem, 5, padding=3 if pooled else 2, stride=2 - pooled)
        self.down: nn.Module = RectifiedPool() if pooled else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return features."""
        out: Tensor = self.down(self.conv(x))
        return out


class Branch(nn.Module):
    """The exit: features to logits."""

    def __init__(self, size: LightSize, classes: int) -> None:
        super().__init__()
        pooled = size.downsampling == "pool"
        self.conv = nn.Conv2d(size.stem, size.branch, 3, padding=1, stride=2 - pooled)
        self.down: nn.Module = RectifiedPool() if pooled else nn.ReLU()
        side = 8 if pooled else 7
        self.classify = nn.Linear(size.branch * side * side, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits."""
        out: Tensor = self.classify(self.down(self.conv(features)).flatten(1))
        return out


class Trunk(nn.Module):
    """The rest of LeNet: (N, 5, 15, 15) -> (N, K)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(5, 10, 5, padding=3)
        self.conv2 = nn.Conv2d(10, 20, 5, padding=3)
        self.down = RectifiedPool()
        self.hidden: nn.Module = nn.Linear(720, 84)
        self.classify = nn.Linear(84, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits; as published, nothing stands between the two matrices."""
        x = self.down(self.conv2(self.down(self.conv1(features))))
        out: Tensor = self.classify(self.hidden(x.flatten(1)))
        return out


class LeNet(nn.Module):
    """BranchyNet's LeNet without its exit: 1.14 M multiply-adds."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem, self.trunk = Stem(), Trunk(classes)

    @property
    def first_layer(self) -> nn.Conv2d:
        """The layer that reads the image."""
        return self.stem.conv

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        out: Tensor = self.trunk(self.stem(x))
        return out


class LightNet(nn.Module):
    """BranchyNet cut at its exit: 0.22 M multiply-adds as published."""

    def __init__(self, classes: int, size: LightSize = _PUBLISHED) -> None:
        super().__init__()
        self.stem, self.branch = Stem(size), Branch(size, classes)

    @property
    def first_layer(self) -> nn.Conv2d:
        """The layer that reads the image."""
        return self.stem.conv

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        out: Tensor = self.branch(self.stem(x))
        return out


class BranchyNet(nn.Module):
    """LeNet with an exit after its first convolution (arXiv 1709.01686, `networks/lenet`)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = Stem()
        self.branch, self.trunk = Branch(_PUBLISHED, classes), Trunk(classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the exit and those of the end."""
        features = self.stem(x)
        return self.branch(features), self.trunk(features)


class Autoencoder(nn.Module):
    """The converting autoencoder: flat images (N, 784), 0 to 1, to flat images.

    `hidden` are the widths of the inner layers, all rectified but the last, which is linear
    (CBNet's notebook for KMNIST); the end is a sigmoid.
    """

    def __init__(self, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = (PIXELS, *hidden)
        self.encoder = nn.ModuleList(
            nn.Linear(wide, narrow) for wide, narrow in itertools.pairwise(widths)
        )
        self.decoder = nn.Linear(widths[-1], PIXELS)

    def forward(self, x: Tensor) -> Tensor:
        """Convert (N, 784)."""
        return self.decode(self.encode(x)[-1])

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return what each inner layer says."""
        activities: list[Tensor] = []
        last = len(self.encoder) - 1
        for index, layer in enumerate(self.encoder):
            x = layer(x) if index == last else F.relu(layer(x))
            activities.append(x)
        return activities

    def decode(self, code: Tensor) -> Tensor:
        """Turn the last inner layer's values into an image (N, 784)."""
        out: Tensor = self.decoder(code).sigmoid()
        return out


class CBNet(nn.Module):
    """The autoencoder, then the light network, for every image (arXiv 2403.07036)."""

    def __init__(self, classes: int, hidden: Sequence[int], size: LightSize = _PUBLISHED) -> None:
        super().__init__()
        self.autoencoder = Autoencoder(hidden)
        self.light = LightNet(classes, size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, and the converted images (N, 1, 28, 28), 0 to 1."""
        converted = self.autoencoder(x.flatten(1)).reshape(x.shape)
        return self.light(converted), converted

"""Images with their classes, to train on and to be judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phoneward.errors import DataError
from phoneward.export.models.cbnet.specs import SIDE


@dataclass(frozen=True)
class Split:
    """Grey images (N, 28, 28) uint8 and their classes (N,) int64."""

    images: NDArray[np.uint8]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.classes)

    def take(self, indices: NDArray[np.int64]) -> Split:
        """Return the images at `indices`, in their order."""
        return Split(self.images[indices], self.classes[indices])


@dataclass(frozen=True)
class Dataset:
    """A data set: its name, the labels of its classes, what to train on and what to test with."""

    name: str
    labels: tuple[str, ...]
    train: Split
    test: Split

    def __post_init__(self) -> None:
        """Raise `DataError` unless there are two classes, and each has an image to train on."""
        if len(self.labels) < 2:
            raise DataError(self.name, f"{len(self.labels)} class is not enough to tell apart")
        for part, split in (("train", self.train), ("test", self.test)):
            if split.images.shape != (len(split), SIDE, SIDE) or split.images.dtype != np.uint8:
                shape = (*split.images.shape, split.images.dtype)
                raise DataError(self.name, f"{part}: images are not 28x28 bytes but {shape}")
            if not len(split):
                raise DataError(self.name, f"{part}: no images")
            top = int(split.classes.max())
            if top >= len(self.labels) or split.classes.min() < 0:
                raise DataError(
                    self.name, f"{part}: label {top} is out of range: {len(self.labels)} classes"
                )
        lacking = set(range(len(self.labels))) - set(self.train.classes.tolist())
        if lacking:
            label = self.labels[min(lacking)]
            raise DataError(self.name, f"train: no image of class '{label}'")


def hold_out(split: Split, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of the rest, and of `count` images chosen by `seed` to make choices with.

    Of a split with less than five times `count` images a fifth is held out. A class keeps at least
    one image in the rest.

    Raises:
        DataError: there are too few images to hold one out.
    """
    left = np.bincount(split.classes)
    held: list[int] = []
    for place in np.random.default_rng(seed).permutation(len(split)).tolist():
        if len(held) == min(count, len(split) // 5):
            break
        if left[split.classes[place]] > 1:
            left[split.classes[place]] -= 1
            held.append(place)
    if not held:
        raise DataError("train", f"{len(split)} images are too few to hold some out")
    chosen = np.sort(np.array(held, np.int64))
    return np.setdiff1d(np.arange(len(split)), chosen), chosen

"""Batches of images, a little different in every epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from phoneward.export.train.data.dataset import Split


@dataclass(frozen=True)
class Augmentation:
    """Moves of up to `shift` pixels in both directions."""

    shift: int = 1


def as_tensor(split: Split) -> Tensor:
    """Return images as (N, 1, 28, 28) float32, 0 to 1, in channels-last memory.

    oneDNN convolves few channels three times as fast in that order.
    """
    images = torch.from_numpy(split.images.copy()).unsqueeze(1).float() / 255
    return images.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Batches:
    """Images (N, 1, 28, 28) and values (N, ...) that go with them, in a new order each epoch.

    `chosen` (M,) has the indices of those that make up an epoch, some of them perhaps twice;
    None: all, once.
    """

    images: Tensor
    values: Tensor
    size: int
    augmentation: Augmentation
    chosen: Tensor | None = None

    def __call__(self, generator: Generator) -> list[tuple[Tensor, Tensor]]:
        """Return the whole batches of an epoch; what is left over waits for another."""
        pool = torch.arange(len(self.images)) if self.chosen is None else self.chosen
        order = pool[torch.randperm(len(pool), generator=generator)]
        size = min(self.size, len(order))
        batches = []
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            images = augmented(self.images[rows], self.augmentation, generator)
            batches.append((images, self.values[rows]))
        return batches


def augmented(images: Tensor, how: Augmentation, generator: Generator) -> Tensor:
    """Move each image by its own chance; what comes in from outside is black."""
    count, _, height, width = images.shape
    if how.shift:
        padded = F.pad(images, (how.shift,) * 4)
        offsets = torch.randint(0, 2 * how.shift + 1, (2, count), generator=generator)
        rows = offsets[0, :, None] + torch.arange(height)
        columns = offsets[1, :, None] + torch.arange(width)
        each = torch.arange(count)[:, None, None]
        images = padded[each, 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)
    return images.contiguous(memory_format=torch.channels_last)

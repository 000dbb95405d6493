"""What one step of a training sees: clips, the objects to follow in them, and how they are shown.

Everything is drawn from the key of the step, without torch, so that another process can do it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phoneward.export.train.tam.colours import recoloured
from phoneward.export.train.tam.views import followed, view
from phoneward.runtime.prompt_tensors import BOTTOM_RIGHT, TOP_LEFT, UNUSED

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from phoneward.export.train.tam.views import Stock

SHOWN = 4
"""Points that an object is shown by, at most."""
POINTS = SHOWN + 1
"""Places for points in a training; the last is for a correction."""
_JITTER = 0.08  # of a box's sides


@dataclass(frozen=True)
class Sampling:
    """How the clips of one part of a training are made.

    Attributes:
        level: one of the clip generator's levels.
        size: side of the frames in pixels.
        frames: frames a clip.
        clips: clips a step.
        objects: samples a clip; an object may be more than one of them, shown in other ways.
        masks: share of the samples that are shown by a mask; of the rest a third are boxes.
        stride: at most this many frames of the generated clip are one step of the sample.
        reuse: at most so many steps of an epoch see a generated clip, each another view of it.
        alike: share of the clips whose things are made of few photographs, those of the ground
            among them, and thus look alike.
        recolour: share of the views that are gray, paler, or of other colours.
    """

    level: str
    size: int
    frames: int
    clips: int = 8
    objects: int = 2
    masks: float = 0.5
    stride: int = 1
    reuse: int = 1
    alike: float = 0.0
    recolour: float = 0.0


@dataclass(frozen=True, eq=False)
class Batch:
    """C clips of T frames with a side of S pixels, and N objects in them.

    Attributes:
        frames: uint8 (C, T, S, S, 3), RGB.
        masks: bool (N, T, S, S).
        clips: int64 (N,), the clip of each object.
        points: float32 (N, POINTS, 2), x and y in pixels.
        labels: float32 (N, POINTS), as the stage `prompt` reads them.
        has_mask: float32 (N, 1), 1 where the object is shown by its mask.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    clips: NDArray[np.int64]
    points: NDArray[np.float32]
    labels: NDArray[np.float32]
    has_mask: NDArray[np.float32]


def draw(stock: Stock, how: Sampling, key: tuple[int, ...]) -> Batch:
    """Make the batch that `key` (seed, part, epoch, which sampling, step of it) stands for."""
    *turn, step = key
    rng = np.random.default_rng(key)
    frames, masks, owners, prompts = [], [], [], []
    for number in range(how.clips):
        # within an epoch the places take new clips in turn, not all at once
        made = (*turn, number, (step + number) // how.reuse)
        held = *turn[-1:], number
        pixels, ids = view(stock.clip(how, held, made), how.frames, rng)
        if how.recolour and rng.random() < how.recolour:
            pixels = recoloured(pixels, rng)
        frames.append(pixels)
        for each in _chosen(followed(ids[0]), how.objects, rng):
            mask = ids == each
            masks.append(mask)
            owners.append(number)
            prompts.append(shown(mask[0], how.masks, rng))
    return Batch(
        frames=np.stack(frames),
        masks=np.stack(masks),
        clips=np.array(owners, np.int64),
        points=np.stack([points for points, _, _ in prompts]),
        labels=np.stack([labels for _, labels, _ in prompts]),
        has_mask=np.array([[masked] for _, _, masked in prompts], np.float32),
    )


def _chosen(present: list[int], count: int, rng: Generator) -> list[int]:
    order = list(rng.permutation(present))
    return [int(order[i % len(order)]) for i in range(count)]


def shown(
    mask: NDArray[np.bool_], masks: float, rng: Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], bool]:
    """Choose how an object is shown: points (POINTS, 2), labels (POINTS,), "by its mask?"."""
    points = np.zeros((POINTS, 2), np.float32)
    labels = np.full(POINTS, UNUSED, np.float32)
    if rng.random() < masks:
        labels[0] = -1
        return points, labels, True
    if rng.random() < 1 / 3:
        points[:2], labels[:2] = box_around(mask, rng), (TOP_LEFT, BOTTOM_RIGHT)
        return points, labels, False
    count = 1 if rng.random() < 0.7 else int(rng.integers(2, SHOWN + 1))
    for slot in range(count):
        positive = slot == 0 or rng.random() < 0.6 or mask.all()
        points[slot] = inside(mask, rng) if positive else place(~mask, rng)
        labels[slot] = positive
    return points, labels, False


def box_around(mask: NDArray[np.bool_], rng: Generator) -> NDArray[np.float32]:
    """A box's corners (2, 2), moved by a little of its sides, as a hand would draw it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    corners = np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]], np.float32)
    sides = corners[1] - corners[0]
    moved = corners + rng.uniform(-_JITTER, _JITTER, (2, 2)) * sides
    limits = np.array(mask.shape[::-1], np.float32) - 1
    clipped: NDArray[np.float32] = np.clip(moved, 0, limits).astype(np.float32)
    return clipped


def inside(mask: NDArray[np.bool_], rng: Generator) -> NDArray[np.float32]:
    """A point on the object: half the time where it is thick, as a finger would choose."""
    if rng.random() < 0.5:
        core = mask
        while True:
            smaller = (
                core[1:-1, 1:-1]
                & core[:-2, 1:-1]
                & core[2:, 1:-1]
                & core[1:-1, :-2]
                & core[1:-1, 2:]
            )
            padded = np.pad(smaller, 1)
            if not padded.any():
                break
            core = padded
        return place(core, rng)
    return place(mask, rng)


def place(mask: NDArray[np.bool_], rng: Generator) -> NDArray[np.float32]:
    """The middle of a pixel of the mask, x and y; each is as likely."""
    rows, columns = np.nonzero(mask)
    chosen = int(rng.integers(len(rows)))
    return np.array([columns[chosen] + 0.5, rows[chosen] + 0.5], np.float32)

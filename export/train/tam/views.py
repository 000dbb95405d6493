"""Samples of clips: which part of one is shown, how fast, which way round.

Making a clip costs more than a step of training has to spare, so that each is seen several times,
never twice alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoneward.export.train.clips import LEAST_SHARE, Clip, ClipRecipe, generate

if TYPE_CHECKING:
    from numpy.random import Generator

    from phoneward.export.train.clips import Pool
    from phoneward.export.train.tam.batch import Sampling

Frames = NDArray[np.uint8]
_CLOSEST = 0.55  # side of the smallest part that is shown, as a share
_ATTEMPTS = 3


class Stock:
    """The clips that are in use: one for each place in the batches of a sampling."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._clips: dict[tuple[int, ...], tuple[tuple[object, ...], Clip]] = {}

    def clip(self, how: Sampling, place: tuple[int, ...], key: tuple[int, ...]) -> Clip:
        """Return the clip of `key`, which stays until its place asks for another."""
        wanted = (how, key)
        if place not in self._clips or self._clips[place][0] != wanted:
            length = 1 + (how.frames - 1) * how.stride
            recipe = ClipRecipe(size=how.size, frames=length, level=how.level)
            rng = np.random.default_rng(key)
            seed = int(rng.integers(2**31))
            pool = self._pool.few(rng) if rng.random() < how.alike else self._pool
            self._clips[place] = wanted, generate(pool, recipe, seed)
        return self._clips[place][1]


def view(clip: Clip, frames: int, rng: Generator) -> tuple[Frames, Frames]:
    """Return `frames` frames of a clip and their masks, of the clip's size.

    They may be faster than the clip, backwards, mirrored, or a part of it that is made larger. An
    object that can be followed is in the first of them.
    """
    most = max(1, (len(clip.frames) - 1) // max(1, frames - 1))
    stride = int(rng.integers(1, most + 1))
    span = (frames - 1) * stride + 1
    start = int(rng.integers(len(clip.frames) - span + 1))
    chosen = slice(start, start + span, stride)
    pixels, masks = clip.frames[chosen], clip.masks[chosen]
    if rng.random() < 0.5 and followed(masks[-1]):
        pixels, masks = pixels[::-1], masks[::-1]
    if not followed(masks[0]):
        pixels, masks = clip.frames[:span:stride], clip.masks[:span:stride]
    if rng.random() < 0.5:
        pixels, masks = pixels[:, :, ::-1], masks[:, :, ::-1]
    return _closer(pixels, masks, rng) if rng.random() < 0.6 else (pixels, masks)


def followed(masks: NDArray[np.uint8]) -> list[int]:
    """Return the objects that are large enough to be pointed at in a frame (H, W)."""
    areas = np.bincount(masks.ravel())
    return [number for number in range(1, len(areas)) if areas[number] > LEAST_SHARE * masks.size]


def _closer(pixels: Frames, masks: Frames, rng: Generator) -> tuple[Frames, Frames]:
    """Show a part of the frame, where one of the objects is."""
    height, width = masks.shape[1:]
    for _ in range(_ATTEMPTS):
        share = rng.uniform(_CLOSEST, 1)
        left, top = rng.uniform(0, 1 - share, 2) * (width, height)
        box = left, top, left + share * width, top + share * height
        first = _cut(masks[0], box, Image.Resampling.NEAREST)
        if followed(first):
            return (
                np.stack([_cut(each, box, Image.Resampling.BILINEAR) for each in pixels]),
                np.stack([_cut(each, box, Image.Resampling.NEAREST) for each in masks]),
            )
    return pixels, masks


def _cut(array: Frames, box: tuple[float, float, float, float], how: Image.Resampling) -> Frames:
    image = Image.fromarray(np.ascontiguousarray(array))
    return np.asarray(image.resize(image.size, how, box=box))

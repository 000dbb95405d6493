"""Clips from a pool, a recipe and a seed."""

from __future__ import annotations

from itertools import count

import numpy as np
from numpy.typing import NDArray

from phoneward.errors import InvalidSpec
from phoneward.export.train.clips.drawing import draw_scene
from phoneward.export.train.clips.light import develop
from phoneward.export.train.clips.pool import Pool
from phoneward.export.train.clips.recipe import LEVELS, Clip, ClipRecipe
from phoneward.export.train.clips.render import compose, masks_of
from phoneward.export.train.clips.scene import Scene

Frame = NDArray[np.uint8]
Composed = tuple[NDArray[np.float32], NDArray[np.float32]]

LEAST_SHARE = 0.003
"""An object has at least this share of frame 0's pixels."""

_STILL_THERE = 0.25
# an object whose mean levels and their spread differ by less from its surroundings is not seen
_LEAST_CONTRAST = 7.0


def generate(pool: Pool, recipe: ClipRecipe, seed: int) -> Clip:
    """Generate a clip; the same arguments give the same bytes in any process.

    An object that in frame 0 is hidden, too small, or of its surroundings' colours stays in the
    picture without a number. Below the level `full` every object keeps a quarter of its pixels
    throughout.

    Raises:
        InvalidSpec: the seed is negative.
    """
    if seed < 0:
        raise InvalidSpec(f"seed {seed} is negative")
    for attempt in count():
        scene = draw_scene(pool, recipe, np.random.default_rng([seed, attempt]))
        frame, masks = _rendered(scene, 0)
        owners = _in_sight(scene.objects, frame, masks)
        if not owners:
            continue
        # to whom a thing belongs makes no difference to how it looks
        numbers = np.zeros(scene.objects + 1, np.uint8)
        numbers[owners] = np.arange(1, len(owners) + 1)
        clip = render(scene.tracking(owners), recipe.frames, (frame, numbers[masks]))
        if LEVELS[recipe.level].events or _all_stay(clip):
            return clip
    raise AssertionError("unreachable")


def render(scene: Scene, frames: int, first: tuple[Frame, Frame] | None = None) -> Clip:
    """Render all frames of a scene with their masks; `first` is frame 0 if it is there already."""
    width, height = scene.size
    pixels = np.empty((frames, height, width, 3), np.uint8)
    masks = np.empty((frames, height, width), np.uint8)
    still = compose(scene, 0) if frames > 1 and not scene.moves else None
    for time in range(frames):
        if time == 0 and first:
            pixels[0], masks[0] = first
        else:
            pixels[time], masks[time] = _rendered(scene, time, still)
    return Clip(pixels, masks, scene.objects)


def _rendered(scene: Scene, time: int, still: Composed | None = None) -> tuple[Frame, Frame]:
    frame, shares = still or compose(scene, time)
    return develop(scene.light, frame, time), masks_of(shares)


def _in_sight(objects: int, frame: Frame, masks: Frame) -> list[int]:
    """Return the objects that can be made out in frame 0."""
    areas = np.bincount(masks.ravel(), minlength=objects + 1)
    large = [number for number in range(1, objects + 1) if areas[number] > LEAST_SHARE * masks.size]
    return [number for number in large if _contrast(frame, masks == number) > _LEAST_CONTRAST]


def _contrast(frame: Frame, mask: NDArray[np.bool_]) -> float:
    """Return by how much a mask's levels differ in mean or spread from those about it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    margin = 2 + len(rows) // 8 + len(columns) // 8
    top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
    box = slice(top, rows[-1] + margin + 1, 2), slice(left, columns[-1] + margin + 1, 2)
    levels, inside = frame[box].astype(np.float32), mask[box]
    own, other = levels[inside], levels[~inside]
    if not own.size or not other.size:
        return 0.0
    return float(max(np.abs(own.mean(0) - other.mean(0)).max(), abs(own.std() - other.std())))


def _all_stay(clip: Clip) -> bool:
    areas = np.stack([(clip.masks == number).sum((1, 2)) for number in range(1, clip.objects + 1)])
    return bool((areas >= _STILL_THERE * areas[:, :1]).all())

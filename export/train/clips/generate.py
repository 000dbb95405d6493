"""Clips from a pool, a recipe and a seed."""

from __future__ import annotations

from itertools import count

import numpy as np

from phoneward.errors import InvalidSpec
from phoneward.export.train.clips.drawing import draw_scene
from phoneward.export.train.clips.light import develop
from phoneward.export.train.clips.pool import Pool
from phoneward.export.train.clips.recipe import LEVELS, Clip, ClipRecipe
from phoneward.export.train.clips.render import compose, masks_of
from phoneward.export.train.clips.scene import Scene

LEAST_SHARE = 0.003
"""An object has at least this share of frame 0's pixels."""

_STILL_THERE = 0.25


def generate(pool: Pool, recipe: ClipRecipe, seed: int) -> Clip:
    """Generate a clip; the same arguments give the same bytes in any process.

    An object that is hidden or too small in frame 0 stays in the picture without a number. Below
    the level `full` every object keeps a quarter of its pixels throughout.

    Raises:
        InvalidSpec: the seed is negative.
    """
    if seed < 0:
        raise InvalidSpec(f"seed {seed} is negative")
    for attempt in count():
        scene = visible(draw_scene(pool, recipe, np.random.default_rng([seed, attempt])))
        if scene is None:
            continue
        clip = render(scene, recipe.frames)
        if LEVELS[recipe.level].events or _all_stay(clip):
            return clip
    raise AssertionError("unreachable")


def visible(scene: Scene) -> Scene | None:
    """Return a scene with the objects that are in sight in frame 0, None if there are none."""
    areas = np.bincount(masks_of(compose(scene, 0)[1]).ravel(), minlength=scene.objects + 1)[1:]
    least = LEAST_SHARE * scene.size[0] * scene.size[1]
    owners = [number for number, area in enumerate(areas, 1) if area > least]
    return scene.tracking(owners) if owners else None


def render(scene: Scene, frames: int) -> Clip:
    """Render all frames of a scene with their masks."""
    width, height = scene.size
    pixels = np.empty((frames, height, width, 3), np.uint8)
    masks = np.empty((frames, height, width), np.uint8)
    for time in range(frames):
        frame, shares = compose(scene, time)
        pixels[time], masks[time] = develop(scene.light, frame, time), masks_of(shares)
    return Clip(pixels, masks, scene.objects)


def _all_stay(clip: Clip) -> bool:
    areas = np.stack([(clip.masks == number).sum((1, 2)) for number in range(1, clip.objects + 1)])
    return bool((areas >= _STILL_THERE * areas[:, :1]).all())

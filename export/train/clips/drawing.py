"""Random scenes: which things there are, where they begin, and in which order they lie."""

from __future__ import annotations

import numpy as np

from phoneward.export.train.clips.actors import (
    Actor,
    draw_actor,
    draw_copy,
    draw_occluder,
    layers_of,
)
from phoneward.export.train.clips.camera import draw_camera, draw_ground
from phoneward.export.train.clips.light import draw_light
from phoneward.export.train.clips.motion import Floats, Path
from phoneward.export.train.clips.moves import Start, draw_path, passing_over, standing
from phoneward.export.train.clips.pool import TEXTURE, Pool
from phoneward.export.train.clips.recipe import LEVELS, ClipRecipe
from phoneward.export.train.clips.scene import Layer, Scene
from phoneward.export.train.clips.setting import Setting
from phoneward.export.train.clips.sources import PHOTO

_SHARES = (0.01, 0.33)
_MOST_DISTRACTORS = 3
_MARGIN = 0.08

Group = list[Layer]


def draw_scene(pool: Pool, recipe: ClipRecipe, rng: np.random.Generator) -> Scene:
    """Draw a scene; nothing is promised yet of what is visible in it."""
    level = LEVELS[recipe.level]
    pace = float(np.exp(rng.uniform(np.log(0.35), np.log(1.4)))) if level.events else 1.0
    camera = draw_camera(rng, recipe, level, pace)
    photographed = pool.count(PHOTO) > 0 and rng.random() < 0.75
    picture = pool.pick(PHOTO if photographed else TEXTURE, rng)
    shutter = float(rng.uniform(0.2, 0.8)) if rng.random() < 0.5 else 0.0
    setting = Setting(pool, recipe, level, camera, picture, pace, shutter)
    ground = draw_ground(rng, picture, camera, (recipe.width, recipe.height))
    groups, count, paths = _draw_things(setting, rng)
    groups += _draw_occluders(setting, rng, paths)
    return Scene(
        (recipe.width, recipe.height),
        ground,
        tuple(layer for group in groups for layer in group),
        draw_light(rng, recipe.frames, level),
        count,
        shutter,
    )


def _draw_things(
    setting: Setting, rng: np.random.Generator
) -> tuple[list[Group], int, list[tuple[Actor, Path]]]:
    """Draw the objects and what looks like them, in a random order of depth."""
    least, most = setting.recipe.objects
    count = int(rng.integers(least, most + 1))
    extras = int(rng.integers(0, _MOST_DISTRACTORS + 1)) if rng.random() < 0.6 else 0
    actors: list[Actor] = []
    starts: list[Start] = []
    for number in range(count + extras):
        alike = 0.6 if number >= count else 0.25
        area = _draw_area(setting, rng, count)
        if actors and rng.random() < alike:
            model = actors[rng.integers(min(len(actors), count))]
            actors.append(draw_copy(setting, rng, model, area))
        else:
            actors.append(draw_actor(setting, rng, area))
        starts.append(Start(_draw_centre(setting, rng, starts), actors[-1].radius))
    paths, groups = [], []
    for number, actor in enumerate(actors):
        others = starts[:number] + starts[number + 1 :]
        path = draw_path(setting, rng, starts[number], others)
        paths.append((actor, path))
        owner = number + 1 if number < count else 0
        groups.append(layers_of(actor, path, owner, setting, rng))
    order = rng.permutation(len(groups)).tolist()
    return [groups[place] for place in order], count, paths[:count]


def _draw_occluders(
    setting: Setting, rng: np.random.Generator, targets: list[tuple[Actor, Path]]
) -> list[Group]:
    """Draw what stands in front or, with events, passes over an object, often hiding it whole."""
    if rng.random() > 0.4:
        return []
    groups = []
    recipe = setting.recipe
    for _ in range(int(rng.integers(1, 3))):
        actor, target = targets[rng.integers(len(targets))]
        if setting.level.events and rng.random() < 0.65:
            whole = rng.random() < 0.65
            extent = 2 * actor.radius * (rng.uniform(1, 1.7) if whole else rng.uniform(0.3, 1))
            path = passing_over(setting, rng, target)
        else:
            extent = recipe.side * rng.uniform(0.08, 0.35)
            place = rng.uniform(0, 1, 2) * [recipe.width, recipe.height]
            path = standing(setting, place)
        occluder = draw_occluder(setting, rng, min(extent, recipe.side))
        groups.append(layers_of(occluder, path, 0, setting, rng))
    return groups


def _draw_area(setting: Setting, rng: np.random.Generator, count: int) -> float:
    low, high = np.log(_SHARES[0]), np.log(_SHARES[1] / (1 + 0.3 * (count - 1)))
    share = float(np.exp(rng.uniform(low, high)))
    return max(share * setting.recipe.width * setting.recipe.height, 24.0)


def _draw_centre(setting: Setting, rng: np.random.Generator, others: list[Start]) -> Floats:
    """Draw a place in the frame, mostly the one of four that is farthest from what is there."""
    size = np.array([setting.recipe.width, setting.recipe.height])
    places = (_MARGIN + (1 - 2 * _MARGIN) * rng.random((4, 2))) * size
    free = 0
    if others and rng.random() < 0.65:
        gaps = [
            min(float(np.hypot(*(place - other.centre))) - other.radius for other in others)
            for place in places
        ]
        free = int(np.argmax(gaps))
    centre: Floats = places[free]
    return centre

"""What things do: stand, wander, jump, cross one another, leave and come back, pass over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phoneward.export.train.clips.motion import (
    Floats,
    Path,
    excursion,
    folded,
    jumps,
    smooth,
    still,
    wander,
    waver,
)
from phoneward.export.train.clips.setting import Setting

_MOST_GROWN = 0.5
_UPRIGHT = 0.6
# of the side, a frame: what an object that leaves may need, and one that crosses another
_LEAVING = (0.04, 0.2)
_CROSSING = 0.1


@dataclass(frozen=True)
class Start:
    """Where an object is in frame 0 (2,), in pixels, and how far its farthest corner is from it."""

    centre: Floats
    radius: float


def draw_path(
    setting: Setting, rng: np.random.Generator, start: Start, others: list[Start]
) -> Path:
    """Draw an object's way from its start."""
    recipe, level = setting.recipe, setting.level
    shape = _draw_pose(setting, rng)
    if not level.events or rng.random() < 0.55:
        return _draw_usual(setting, rng, start, shape)
    centres = None
    move = rng.random()
    if move < 0.55:
        away = _outside(setting, rng, start)
        fastest = recipe.side * rng.uniform(*_LEAVING)
        centres = excursion(rng, recipe.frames, away, fastest)
    elif move < 0.8 and others:
        away = (others[rng.integers(len(others))].centre - start.centre) * rng.uniform(1.2, 2)
        if np.hypot(*away) < _CROSSING * recipe.side * (recipe.frames - 1):
            centres = np.linspace(0, 1, recipe.frames)[:, None] * away
    else:
        speed = _draw_speed(setting, rng)
        sudden = jumps(rng, recipe.frames, recipe.side * rng.uniform(0.05, 0.2))
        inside = _folded(setting, start.centre + wander(rng, recipe.frames, speed) + sudden)
        centres = inside - start.centre
    if centres is None:
        return _draw_usual(setting, rng, start, shape)
    return Path(start.centre + centres, shape.angles, shape.scales, shape.shears)


def passing_over(setting: Setting, rng: np.random.Generator, target: Path) -> Path:
    """Draw the way of what passes over a target's way, straight on."""
    frames = setting.recipe.frames
    meeting = int(rng.integers(min(1, frames - 1), frames))
    angle = rng.choice([0, np.pi]) + rng.normal(0, 0.5)
    step = setting.recipe.side * rng.uniform(0.02, 0.12) * np.array([np.cos(angle), np.sin(angle)])
    aside = rng.normal(0, 0.03 * setting.recipe.side, 2)
    time = np.arange(frames)[:, None] - meeting
    return _moved(still((0, 0), frames), target.centres[meeting] + aside + time * step)


def standing(setting: Setting, centre: Floats) -> Path:
    """Return the way through the frames of what stands on the ground."""
    frames = setting.recipe.frames
    return _grounded(setting, still((0, 0), frames), np.tile(centre, (frames, 1)))


def _draw_usual(setting: Setting, rng: np.random.Generator, start: Start, shape: Path) -> Path:
    """Draw a walk, over the ground or, as if the camera followed, within the frame."""
    frames = setting.recipe.frames
    walk = start.centre + wander(rng, frames, _draw_speed(setting, rng))
    if rng.random() < 0.5:
        return _grounded(setting, shape, walk)
    return _moved(shape, _folded(setting, walk))


def _draw_speed(setting: Setting, rng: np.random.Generator) -> float:
    """Draw a mean speed in pixels a frame, slow ones as often as fast ones."""
    level = setting.level
    if level.fastest == 0:
        return 0.0
    share = float(np.exp(rng.uniform(np.log(level.slowest), np.log(level.fastest))))
    return min(share * setting.pace, level.fastest) * setting.recipe.side


def _draw_pose(setting: Setting, rng: np.random.Generator) -> Path:
    """Draw size, rotation, shear and turning away over time; the places are all 0."""
    frames, level, pace = setting.recipe.frames, setting.level, setting.pace
    growth = smooth(rng, frames, 0.4 * level.fastest * pace * rng.random() ** 2)
    scale = np.exp(np.clip(growth, -_MOST_GROWN, _MOST_GROWN))
    first = rng.normal(0, 0.15) if rng.random() < _UPRIGHT else rng.uniform(0, 2 * np.pi)
    angles = first + smooth(rng, frames, np.deg2rad(level.turn) * pace * rng.random() ** 2)
    narrowed = np.ones(frames)
    if rng.random() < 0.3:
        height = rng.uniform(0, 0.25)
        narrowed = 1 - height + waver(rng, frames, height, 0.8 * level.fastest * pace)
    shears = waver(rng, frames, rng.uniform(0, 0.25), 0.5 * level.fastest * pace)
    scales = np.stack([scale * narrowed, scale], -1)
    return Path(np.zeros((frames, 2)), angles, scales, shears)


def _outside(setting: Setting, rng: np.random.Generator, start: Start) -> Floats:
    """Return the way (2,) out of the frame over a side, the near ones more often."""
    x, y = start.centre
    width, height, far = setting.recipe.width, setting.recipe.height, start.radius * 1.3
    ways = np.array([[-x - far, 0], [width - x + far, 0], [0, -y - far], [0, height - y + far]])
    distances = np.abs(ways).sum(1)
    chances = 1 / distances**2
    way = ways[rng.choice(4, p=chances / chances.sum())]
    aslant: Floats = way + rng.normal(0, 0.08 * setting.recipe.side, 2) * (way == 0)
    return aslant


def _grounded(setting: Setting, shape: Path, centres: Floats) -> Path:
    camera = setting.camera
    return Path(
        camera.seen(centres),
        shape.angles + camera.turns,
        shape.scales * camera.zooms[:, None],
        shape.shears,
    )


def _moved(shape: Path, centres: Floats) -> Path:
    return Path(centres, shape.angles, shape.scales, shape.shears)


def _folded(setting: Setting, centres: Floats) -> Floats:
    size = np.array([setting.recipe.width, setting.recipe.height], float)
    return folded(centres, 0.04 * size, 0.96 * size)

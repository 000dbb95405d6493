"""The things of a scene: their looks, their parts, how they bend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from phoneward.export.train.clips.motion import Floats, Path, waver
from phoneward.export.train.clips.scene import Layer, Shadow
from phoneward.export.train.clips.setting import Setting
from phoneward.export.train.clips.shapes import shape_mask
from phoneward.export.train.clips.sprites import (
    Sprite,
    Thing,
    draw_shape,
    draw_thing,
    filling,
    harmonised,
    make_sprite,
    recoloured,
    shrunk,
)
from phoneward.export.train.clips.warp import Waves

_USUAL_COVERAGE = 0.55
_WIDEST = 0.95
_WAVES = 3


@dataclass(frozen=True)
class Part:
    """A limb: where it sits on the body's picture, from its middle in pixels, and its looks."""

    sprite: Sprite
    offset: Floats
    behind: bool


@dataclass(frozen=True)
class Actor:
    """A thing that is ready to move.

    Attributes:
        radius: from its middle to its farthest corner, limbs included, in pixels.
    """

    thing: Thing
    sprite: Sprite
    parts: tuple[Part, ...]
    waves: Waves | None
    shadow: Shadow | None
    radius: float


def draw_actor(setting: Setting, rng: np.random.Generator, area: float) -> Actor:
    """Draw a thing that covers about `area` pixels, less if it is too slender for that."""
    thing = draw_thing(setting.pool, rng, round(np.sqrt(area / _USUAL_COVERAGE)))
    thing = shrunk(thing, area)
    if rng.random() < 0.35:
        thing = recoloured(thing, rng, rng.uniform(0, 0.5))
    if rng.random() < 0.4:
        thing = harmonised(thing, setting.ground, float(rng.uniform(0, 0.7)))
    return _made(setting, rng, thing, area, jointed=rng.random() < 0.2)


def draw_copy(setting: Setting, rng: np.random.Generator, model: Actor, area: float) -> Actor:
    """Draw a thing that looks like another, in another size and often another colour."""
    thing = model.thing
    if rng.random() < 0.6:
        thing = recoloured(thing, rng, rng.uniform(0.1, 0.9))
    if rng.random() < 0.5:
        thing = Thing(thing.colour[:, ::-1], thing.alpha[:, ::-1])
    return _made(setting, rng, thing, area, jointed=False)


def draw_occluder(setting: Setting, rng: np.random.Generator, extent: float) -> Actor:
    """Draw what covers things: a post or another long shape, or a thing as large as `extent`."""
    recipe = setting.recipe
    if rng.random() < 0.4:
        size = max(round(extent * rng.uniform(0.3, 1)), 4), round(recipe.height * 1.3)
        if rng.random() < 0.3:
            size = round(recipe.width * 1.3), max(round(extent * rng.uniform(0.3, 0.8)), 4)
        thing = Thing(filling(setting.pool, rng, size), np.full(size[::-1], 255, np.uint8))
        area = float(size[0] * size[1])
    else:
        draw = draw_shape if rng.random() < 0.5 else draw_thing
        thing = draw(setting.pool, rng, max(round(extent), 8))
        height, width = thing.alpha.shape
        area = thing.coverage * height * width * (extent / max(height, width)) ** 2
    if rng.random() < 0.5:
        thing = harmonised(thing, setting.ground, float(rng.uniform(0.2, 0.8)))
    return _made(setting, rng, thing, area, jointed=False, widest=4.0)


def layers_of(
    actor: Actor, path: Path, owner: int, setting: Setting, rng: np.random.Generator
) -> list[Layer]:
    """Return an actor's layers from back to front, its limbs swinging."""
    frames, level = setting.recipe.frames, setting.level
    body = Layer(actor.sprite, owner, path, actor.waves, setting.shutter, actor.shadow)
    behind: list[Layer] = []
    before: list[Layer] = []
    for part in actor.parts:
        swing = waver(rng, frames, rng.uniform(0.2, 0.7), np.deg2rad(level.turn) * 2)
        way = path.attached(part.offset, swing)
        layer = Layer(part.sprite, owner, way, None, setting.shutter)
        (behind if part.behind else before).append(layer)
    return [*behind, body, *before]


def _made(
    setting: Setting,
    rng: np.random.Generator,
    thing: Thing,
    area: float,
    *,
    jointed: bool,
    widest: float = _WIDEST,
) -> Actor:
    height, width = thing.alpha.shape
    scale = float(np.sqrt(area / max(thing.coverage * height * width, 1)))
    scale = min(
        scale, widest * min(setting.recipe.width, setting.recipe.height) / max(width, height)
    )
    sprite = make_sprite(thing, scale, rng)
    parts = _draw_parts(thing, sprite, rng) if jointed else ()
    reach = max(
        (float(np.hypot(*part.offset)) + max(part.sprite.size) / 2 for part in parts), default=0.0
    )
    radius = max(float(np.hypot(*sprite.size)) / 2, reach)
    return Actor(
        thing,
        sprite,
        parts,
        _draw_waves(rng, sprite, setting) if rng.random() < 0.55 else None,
        _draw_shadow(rng, sprite) if rng.random() < 0.3 else None,
        radius,
    )


def _draw_parts(thing: Thing, body: Sprite, rng: np.random.Generator) -> tuple[Part, ...]:
    """Draw 1 to 3 limbs with the body's colours, about its edge."""
    parts = []
    half = np.array(body.size) / 2
    for angle in rng.uniform(0, 2 * np.pi) + np.arange(rng.integers(1, 4)) * rng.uniform(1.3, 2.4):
        longest = max(round(float(max(body.size)) * rng.uniform(0.35, 0.8)), 6)
        alpha = shape_mask(rng, longest)
        size = alpha.shape[1], alpha.shape[0]
        colour = np.asarray(Image.fromarray(np.ascontiguousarray(thing.colour)).resize(size))
        sprite = make_sprite(Thing(colour, alpha), 1.0, rng)
        offset = half * rng.uniform(0.5, 0.9) * np.array([np.cos(angle), np.sin(angle)])
        parts.append(Part(sprite, offset, behind=bool(rng.random() < 0.5)))
    return tuple(parts)


def _draw_waves(rng: np.random.Generator, sprite: Sprite, setting: Setting) -> Waves | None:
    """Draw a deformation: a few long waves over the thing, slow in time."""
    level, longest = setting.level, max(sprite.size)
    height = level.bend * rng.random() * longest
    if height == 0:
        return None
    lengths = longest * rng.uniform(0.6, 2, _WAVES)
    angles = rng.uniform(0, 2 * np.pi, _WAVES)
    heights = height * rng.dirichlet(np.ones(_WAVES))
    across = rng.uniform(0, 2 * np.pi, _WAVES)
    fastest = 0.5 * setting.pace if level.events else 0.12
    rates = np.stack([np.cos(angles), np.sin(angles)], -1) * (2 * np.pi / lengths)[:, None]
    return Waves(
        np.stack([np.cos(across), np.sin(across)], -1) * heights[:, None],
        np.concatenate([rates, rng.uniform(-fastest, fastest, (_WAVES, 1))], 1),
        rng.uniform(0, 2 * np.pi, _WAVES),
    )


def _draw_shadow(rng: np.random.Generator, sprite: Sprite) -> Shadow:
    longest = max(sprite.size)
    reach = longest * rng.uniform(0.02, 0.2)
    offset = round(reach * rng.uniform(-1, 1)), round(reach * rng.uniform(0.2, 1))
    return Shadow(
        offset, float(rng.uniform(0.2, 0.65)), max(round(longest * rng.uniform(0.02, 0.08)), 1)
    )

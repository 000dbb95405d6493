"""Things as small pictures with alpha: cut out of photographs, or shapes filled with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from phoneward.export.train.clips.pictures import REGION, Pixels
from phoneward.export.train.clips.pool import TEXTURE, Pool
from phoneward.export.train.clips.shapes import shape_mask
from phoneward.export.train.clips.sources import CUTOUT, DRAWING, PHOTO

Floats = NDArray[np.float32]

# how often a thing is what; a group without pictures gives its share to the others
_KINDS = {CUTOUT: 0.46, REGION: 0.14, DRAWING: 0.06, "shape": 0.34}
_BORDER = 2
_SOFT = (0.2, 0.9)
_MOST_ENLARGED = 2.0
_OPAQUE = 250
_RESERVE, _WORTH_SHRINKING = 1.4, 0.7


@dataclass(frozen=True)
class Thing:
    """What a sprite is made from, before its size is known.

    Attributes:
        colour: (h, w, 3) uint8.
        alpha: (h, w) uint8.
    """

    colour: Pixels
    alpha: Pixels

    @property
    def coverage(self) -> float:
        """Share of its rectangle that it covers."""
        return float(self.alpha.mean(dtype=np.float32)) / 255


@dataclass(frozen=True)
class Sprite:
    """A picture to be placed in frames at scale 1 or near it.

    Attributes:
        image: mode RGBa (colour times alpha), with a transparent border, for bilinear sampling.
    """

    image: Image.Image

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.size


def shrunk(thing: Thing, area: float) -> Thing:
    """Return a thing that will be shown with `area` pixels at a size at which work on it is cheap.

    It keeps a reserve for what looks like it and is larger.
    """
    height, width = thing.alpha.shape
    scale = _RESERVE * float(np.sqrt(area / max(thing.coverage * height * width, 1)))
    if scale > _WORTH_SHRINKING:
        return thing
    size = max(round(width * scale), 3), max(round(height * scale), 3)
    rgba = Image.fromarray(np.dstack([thing.colour, thing.alpha]))
    pixels = np.asarray(rgba.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
    return Thing(pixels[..., :3], pixels[..., 3])


def draw_thing(pool: Pool, rng: np.random.Generator, longest: int) -> Thing:
    """Draw a thing; what is made from nothing is made at `longest` pixels."""
    names = [name for name in _KINDS if name == "shape" or pool.count(name)]
    weights = np.array([_KINDS[name] for name in names])
    name = names[rng.choice(len(names), p=weights / weights.sum())]
    if name == "shape":
        return draw_shape(pool, rng, longest)
    pixels = pool.pick(name, rng)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return Thing(pixels[..., :3], pixels[..., 3])


def draw_shape(pool: Pool, rng: np.random.Generator, longest: int) -> Thing:
    """Draw a shape filled with a part of a photograph, a texture or, seldom, one colour."""
    alpha = shape_mask(rng, longest)
    return Thing(filling(pool, rng, (alpha.shape[1], alpha.shape[0])), alpha)


def filling(pool: Pool, rng: np.random.Generator, size: tuple[int, int]) -> Pixels:
    """Draw pixels (h, w, 3) for a rectangle of (width, height)."""
    if rng.random() < 0.06:
        return np.full((size[1], size[0], 3), rng.integers(0, 256, 3), np.uint8)
    group = PHOTO if rng.random() < 0.6 and pool.count(PHOTO) else TEXTURE
    return part_of(pool.pick(group, rng), rng, size)


def part_of(pixels: Pixels, rng: np.random.Generator, size: tuple[int, int]) -> Pixels:
    """Scale a random part of a picture to (width, height), seldom enlarging it."""
    height, width = pixels.shape[:2]
    largest = min(width / size[0], height / size[1])
    scale = min(largest, max(rng.uniform(0.25, 1) * largest, min(largest, 0.8)))
    w, h = scale * size[0], scale * size[1]
    left, top = rng.random() * max(width - w, 0), rng.random() * max(height - h, 0)
    box = (left, top, min(left + w, width), min(top + h, height))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, box, 2.0)
    return np.asarray(image)


def recoloured(thing: Thing, rng: np.random.Generator, strength: float) -> Thing:
    """Mix and shift the colours by random amounts; 0 changes nothing, 1 all of them."""
    mix = np.eye(3) + rng.normal(0, 0.35 * strength, (3, 3))
    mix /= mix.sum(1, keepdims=True).clip(0.5)
    shift = rng.normal(0, 40 * strength, 3)
    colour = thing.colour.astype(np.float32) @ mix.T.astype(np.float32) + shift.astype(np.float32)
    return Thing(np.clip(colour, 0, 255).astype(np.uint8), thing.alpha)


def harmonised(thing: Thing, ground: Pixels, share: float) -> Thing:
    """Move a thing's mean colour and contrast towards the ground's by a share from 0 to 1."""
    own = thing.colour[::2, ::2][thing.alpha[::2, ::2] > 127].astype(np.float32)
    if not own.size:
        return thing
    sample = ground[::8, ::8].astype(np.float32)
    mean, spread = own.mean(0), own.std() + 4
    other, width = sample.mean((0, 1)), float(sample.std()) + 4
    gain = np.float32((1 - share) + share * np.clip(width / spread, 0.5, 1.6))
    target = mean * (1 - share) + other * share
    colour = (thing.colour.astype(np.float32) - mean) * gain + target
    return Thing(np.clip(colour, 0, 255).astype(np.uint8), thing.alpha)


def make_sprite(thing: Thing, scale: float, rng: np.random.Generator) -> Sprite:
    """Scale a thing, soften its edge and premultiply it."""
    height, width = thing.alpha.shape
    scale = min(scale, _MOST_ENLARGED)
    size = max(round(width * scale), 3), max(round(height * scale), 3)
    rgba = Image.fromarray(np.dstack([thing.colour, thing.alpha]))
    image = rgba.convert("RGBa").resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    bordered = Image.new("RGBa", (size[0] + 2 * _BORDER, size[1] + 2 * _BORDER))
    bordered.paste(image, (_BORDER, _BORDER))
    return Sprite(_softened(bordered, float(rng.uniform(*_SOFT))))


def _softened(image: Image.Image, sigma: float) -> Image.Image:
    """Blur only near the edge, by mixing with a blurred copy where alpha changes."""
    if sigma < 0.3:
        return image
    sharp = np.asarray(image)
    soft = np.asarray(image.filter(ImageFilter.BoxBlur(sigma)))
    mixed = np.where(soft[..., 3:] > _OPAQUE, sharp, soft)
    return Image.frombytes("RGBa", image.size, mixed.tobytes())

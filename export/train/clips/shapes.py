"""Outlines of things that are in no photograph: masks (h, w) uint8 with soft edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]
_OVERSAMPLED = 2
_FILL = 0.94


def shape_mask(rng: np.random.Generator, longest: int) -> NDArray[np.uint8]:
    """Draw a random shape whose longer side is `longest` pixels, cropped to it."""
    side = max(longest, 8) * _OVERSAMPLED
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    names = list(_SHAPES)
    _SHAPES[names[rng.choice(len(names), p=_WEIGHTS)]](rng, draw, side)
    cropped = canvas.crop(canvas.getbbox())
    factor = longest / max(cropped.size)
    size = tuple(max(round(extent * factor), 2) for extent in cropped.size)
    return np.asarray(cropped.resize((size[0], size[1]), Image.Resampling.BOX))


def blob(rng: np.random.Generator, rough: float) -> Points:
    """Return a closed outline around 0 within [-1, 1]: a circle with Fourier radii."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radii = np.ones_like(angles)
    for order in range(2, 8):
        height = rng.normal(0, rough / order)
        radii += height * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
    radii = np.maximum(radii, 0.15)
    stretch = np.array([1.0, rng.uniform(0.4, 1)])
    points: Points = np.stack([np.cos(angles), np.sin(angles)], -1) * radii[:, None] * stretch
    return _fitted(_turned(points, rng.uniform(0, np.pi)))


def _blob(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    _polygon(draw, blob(rng, rng.uniform(0.1, 0.8)), side)


def _angular(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    corners = int(rng.integers(3, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners - 3))
    angles = np.sort(np.concatenate([angles, rng.uniform(0, 1) + np.arange(3) * 2 * np.pi / 3]))
    radii = rng.uniform(0.6, 1, corners)
    points = np.stack([np.cos(angles), np.sin(angles)], -1) * radii[:, None]
    _polygon(draw, _fitted(points * [1, rng.uniform(0.4, 1)]), side)


def _box(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [1, rng.uniform(0.25, 1)]
    _polygon(draw, _fitted(_turned(points, rng.uniform(0, np.pi))), side)


def _star(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    tips = int(rng.integers(4, 9))
    angles = np.arange(2 * tips) * np.pi / tips + rng.uniform(0, np.pi)
    radii = np.where(np.arange(2 * tips) % 2, rng.uniform(0.35, 0.7), 1)
    _polygon(draw, _fitted(np.stack([np.cos(angles), np.sin(angles)], -1) * radii[:, None]), side)


def _ring(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    outer = blob(rng, rng.uniform(0, 0.25))
    _polygon(draw, outer, side)
    _polygon(draw, outer * rng.uniform(0.5, 0.8), side, fill=0)


def _stroke(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    """Draw a bent line with round ends: a rope, a letter, a branch."""
    t = np.linspace(0, 1, 40)[:, None]
    a, b, c, d = rng.uniform(-1, 1, (4, 2))
    curve = a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t**2 * (1 - t) + d * t**3
    width = rng.uniform(0.1, 0.3)
    for x, y in (_fitted(curve) * (1 - width) * _FILL + 1) * side / 2:
        r = width * side / 2
        draw.ellipse((x - r, y - r, x + r, y + r), fill=255)


def _branched(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    """Draw a body with limbs."""
    _polygon(draw, blob(rng, 0.3) * rng.uniform(0.35, 0.55), side)
    for angle in rng.uniform(0, 2 * np.pi) + np.arange(rng.integers(2, 6)) * rng.uniform(1, 2):
        limb = np.array([[0, -1], [1, -0.5], [1, 0.5], [0, 1]]) * [1, rng.uniform(0.08, 0.2)]
        _polygon(draw, _turned(limb, float(angle)), side)


_SHAPES: dict[str, Callable[[np.random.Generator, ImageDraw.ImageDraw, int], None]] = {
    "blob": _blob,
    "angular": _angular,
    "box": _box,
    "star": _star,
    "ring": _ring,
    "stroke": _stroke,
    "branched": _branched,
}
_WEIGHTS = (0.38, 0.12, 0.12, 0.08, 0.08, 0.08, 0.14)


def _turned(points: Points, angle: float) -> Points:
    cos, sin = np.cos(angle), np.sin(angle)
    turned: Points = points @ np.array([[cos, sin], [-sin, cos]])
    return turned


def _fitted(points: Points) -> Points:
    """Move and scale points so that their longer extent is [-1, 1]."""
    low, high = points.min(0), points.max(0)
    fitted: Points = (points - (low + high) / 2) * (2 / (high - low).max())
    return fitted


def _polygon(draw: ImageDraw.ImageDraw, points: Points, side: int, fill: int = 255) -> None:
    placed = (points * _FILL + 1) * side / 2
    draw.polygon([(float(x), float(y)) for x, y in placed], fill=fill)

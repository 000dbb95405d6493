"""Textures without a photograph: clouds, cells, stripes, checks, spots and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

SIDE = 288
Field = NDArray[np.float32]


def texture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a texture as RGB (288, 288, 3): one or two fields, coloured by random palettes."""
    kinds = list(_KINDS.values())
    field = kinds[rng.integers(len(kinds))](rng)
    colour = _coloured(field, rng)
    if rng.random() < 0.5:
        other = _coloured(kinds[rng.integers(len(kinds))](rng), rng)
        blend = clouds(rng)[..., None] if rng.random() < 0.5 else np.float32(rng.uniform(0.15, 0.5))
        colour = colour * (1 - blend) + other * blend
    grain = rng.normal(0, rng.uniform(0, 10), (SIDE, SIDE, 1)).astype(np.float32)
    pixels: NDArray[np.uint8] = np.clip(colour + grain, 0, 255).astype(np.uint8)
    return pixels


def clouds(rng: np.random.Generator, rough: float | None = None) -> Field:
    """Draw fractal noise in [0, 1]: octaves of smooth noise, each finer and fainter."""
    fading = rng.uniform(0.45, 0.85) if rough is None else rough
    total, weight = np.zeros((SIDE, SIDE), np.float32), 1.0
    for octave in range(2, 8):
        cells = 2**octave
        grid = Image.fromarray(rng.random((cells, cells), np.float32))
        total += weight * np.asarray(grid.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        weight *= fading
    return _stretched(total)


def _cells(rng: np.random.Generator) -> Field:
    points = rng.random((int(rng.integers(12, 160)), 2))
    near, which = cKDTree(points).query(np.stack(_grid(), -1), k=2)
    if rng.random() < 0.5:
        return _stretched(np.minimum(near[..., 1] - near[..., 0], 0.04))
    levels: Field = rng.random(len(points), np.float32)[which[..., 0]]
    return levels


def _stripes(rng: np.random.Generator) -> Field:
    y, x = _grid()
    angle, count = rng.uniform(0, np.pi), rng.uniform(3, 30)
    bent = rng.uniform(0, 0.15) * clouds(rng, 0.4)
    wave = np.sin(2 * np.pi * count * (x * np.cos(angle) + y * np.sin(angle) + bent))
    return _stretched(np.clip(wave * rng.uniform(1, 6), -1, 1))


def _checks(rng: np.random.Generator) -> Field:
    y, x = _grid()
    angle, count = rng.uniform(0, np.pi / 2), rng.uniform(3, 16)
    bent = rng.uniform(0, 0.06) * clouds(rng, 0.4)
    u = (x * np.cos(angle) + y * np.sin(angle) + bent) * count
    v = (-x * np.sin(angle) + y * np.cos(angle) + bent) * count * rng.uniform(0.4, 1)
    odd = (np.floor(u) + np.floor(v)) % 2
    return _stretched(odd + 0.25 * clouds(rng))


def _spots(rng: np.random.Generator) -> Field:
    points = rng.random((int(rng.integers(10, 120)), 2))
    near, which = cKDTree(points).query(np.stack(_grid(), -1))
    radii = rng.uniform(0.01, 0.06, len(points))[which]
    return _stretched(np.clip((radii - near) * SIDE / 2 + 0.5, 0, 1))


def _gradient(rng: np.random.Generator) -> Field:
    y, x = _grid()
    cx, cy, power = rng.uniform(-0.5, 1.5), rng.uniform(-0.5, 1.5), rng.uniform(0.5, 2)
    return _stretched(np.hypot(x - cx, y - cy) ** power)


_KINDS: dict[str, Callable[[np.random.Generator], Field]] = {
    "clouds": clouds,
    "cells": _cells,
    "stripes": _stripes,
    "checks": _checks,
    "spots": _spots,
    "gradient": _gradient,
}


def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    return y, x


def _stretched(field: NDArray[np.floating[Any]]) -> Field:
    low, high = float(field.min()), float(field.max())
    stretched: Field = ((field - low) / max(high - low, 1e-6)).astype(np.float32)
    return stretched


def _coloured(field: Field, rng: np.random.Generator) -> Field:
    """Colour by a palette of 2 to 4 colours, often close to one another as in nature."""
    count = int(rng.integers(2, 5))
    base = rng.uniform(20, 235, 3)
    colours = np.clip(base + rng.normal(0, rng.uniform(15, 90), (count, 3)), 0, 255)
    stops = np.linspace(0, 1, count)
    channels = [np.interp(field, stops, colours[:, channel]) for channel in range(3)]
    return np.stack(channels, -1).astype(np.float32)

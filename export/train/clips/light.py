"""Light, lens, sensor and compression: what a camera makes of a scene."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from phoneward.export.train.clips.motion import Floats, smooth, waver
from phoneward.export.train.clips.recipe import Level

_LEVELS = np.arange(256) / 255
_BANK = 1 << 21
_BANK_UNIT = 32.0
_CELLS = 4


@dataclass(frozen=True)
class Light:
    """How each of n frames is developed.

    Attributes:
        curves: (n, 3, 256) uint8: red, green and blue by their levels.
        fields: (n, 4, 4) float32 brightness over the frame, to be smoothed, or None for even light.
        blurs: (n,) radii of defocus in pixels.
        noise: standard deviation of the sensor's noise in levels.
        coarse: whether the noise is of pairs of pixels, as after enlarging.
        offsets: (n,) where in the bank of noise a frame's begins.
        quality: of JPEG, or None for no compression.
    """

    curves: NDArray[np.uint8]
    fields: NDArray[np.float32] | None
    blurs: Floats
    noise: float
    coarse: bool
    offsets: NDArray[np.int64]
    quality: int | None


def plain(frames: int) -> Light:
    """Return the light that changes nothing."""
    curves = np.tile(np.arange(256, dtype=np.uint8), (frames, 3, 1))
    return Light(curves, None, np.zeros(frames), 0.0, False, np.zeros(frames, np.int64), None)


def draw_light(rng: np.random.Generator, frames: int, level: Level) -> Light:
    """Draw gains, gamma, uneven light, defocus, noise and compression; dim and flat ones, too."""
    change = float(level.flicker)
    gains = np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.05, 3))
    drift = smooth(rng, frames, 0.012 * change * rng.random() ** 2)
    flicker = rng.normal(0, 0.02 * change * rng.random() ** 3, frames)
    gain = gains * np.exp(np.clip(drift, -0.5, 0.5) + flicker)[:, None]
    gamma = np.exp(rng.normal(0, 0.18))
    contrast = rng.uniform(0.35, 0.8) if rng.random() < 0.15 else rng.uniform(0.85, 1.15)
    middle = rng.uniform(0.3, 0.6)
    tone = np.clip((_LEVELS**gamma - middle) * contrast + middle, 0, 1)
    curves = np.clip(gain[..., None] * tone * 255 + 0.5, 0, 255).astype(np.uint8)
    blur = rng.uniform(0.3, 1.6) if rng.random() < 0.25 else 0.0
    focus = waver(rng, frames, blur * change * rng.random(), 0.15) if blur else np.zeros(frames)
    return Light(
        curves,
        _draw_fields(rng, frames, change) if rng.random() < 0.5 else None,
        np.maximum(blur + focus, 0),
        float(rng.uniform(0, 10) * rng.random()),
        bool(rng.random() < 0.4),
        rng.integers(0, _BANK, frames),
        int(rng.integers(30, 96)) if rng.random() < 0.4 else None,
    )


def develop(light: Light, frame: NDArray[np.float32], time: int) -> NDArray[np.uint8]:
    """Return a frame (3, H, W), levels from 0 to 255, as the camera writes it: (H, W, 3)."""
    height, width = frame.shape[1:]
    if light.fields is not None:
        field = Image.fromarray(light.fields[time])
        smoothed = field.resize((width, height), Image.Resampling.BICUBIC)
        frame = frame * np.asarray(smoothed)
    levels = np.clip(frame + np.float32(0.5), 0, 255).astype(np.uint8)
    image = Image.merge("RGB", [Image.fromarray(plane) for plane in levels])
    if light.blurs[time] > 0.25:
        image = image.filter(ImageFilter.BoxBlur(float(light.blurs[time])))
    image = image.point(light.curves[time].ravel().tolist())
    pixels = np.asarray(image)
    if light.noise > 0.3:
        noise = _noise(light, time, (height, width)) * np.float32(light.noise / _BANK_UNIT)
        pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    return pixels if light.quality is None else _compressed(pixels, light.quality)


def _draw_fields(rng: np.random.Generator, frames: int, change: float) -> NDArray[np.float32]:
    height = rng.uniform(0.05, 0.5)
    fixed = rng.normal(0, height * 0.6, (_CELLS, _CELLS))
    rates = rng.uniform(0, 0.25, (_CELLS, _CELLS)) * change * rng.random()
    phases = rng.uniform(0, 2 * np.pi, (_CELLS, _CELLS))
    moving = np.sin(rates * np.arange(frames)[:, None, None] + phases) * height * 0.5
    return np.clip(np.exp(fixed + moving), 0.25, 1.8).astype(np.float32)


@cache
def _bank() -> NDArray[np.int8]:
    """Return normal noise; drawing it anew for each frame would cost more than the frame."""
    draw = np.random.default_rng(0).standard_normal(2 * _BANK, np.float32) * _BANK_UNIT
    bank: NDArray[np.int8] = np.clip(draw, -127, 127).astype(np.int8)
    return bank


def _noise(light: Light, time: int, size: tuple[int, int]) -> NDArray[np.int8]:
    height, width = size
    if not light.coarse:
        return _from_bank(int(light.offsets[time]), (height, width, 3))
    half = _from_bank(int(light.offsets[time]), ((height + 1) // 2, (width + 1) // 2, 3))
    return half.repeat(2, 0).repeat(2, 1)[:height, :width]


def _from_bank(offset: int, shape: tuple[int, int, int]) -> NDArray[np.int8]:
    needed, bank = int(np.prod(shape)), _bank()
    if offset + needed <= bank.size:
        return bank[offset : offset + needed].reshape(shape)
    return np.resize(bank[offset:], shape)


def _compressed(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.asarray(image)

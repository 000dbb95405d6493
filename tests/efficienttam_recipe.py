"""Weights, frames and the disc behind `data/efficienttam`: pure functions of names and numbers.

The official EfficientTAM, filled with `fill` and shown `clip`, gave the tensors in that folder
(float32, on a CPU, with its default post-processing and without hole filling).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"


def fill(
    shapes: Mapping[str, tuple[int, ...]], object_score_bias: float
) -> dict[str, NDArray[np.float32]]:
    """Return a float32 array for each key of a state dict, drawn from the key's checksum.

    Matrices and kernels are scaled by the root of their fan-in; vectors called `weight` scatter
    around one, other vectors around zero. The bias of the object score decides who is in sight.
    """
    filled = {key: _draw(key, shape) for key, shape in shapes.items()}
    filled[SCORE_BIAS] = np.full(shapes[SCORE_BIAS], object_score_bias, np.float32)
    return filled


def _draw(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    normal = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    values: NDArray[Any] = normal.astype(np.float32)
    if len(shape) > 1:
        return values / np.float32(np.sqrt(np.prod(shape[1:])))
    if key.endswith("weight"):
        return 1 + np.float32(0.1) * values
    return values * np.float32(0.05)


def clip(count: int, size: int) -> NDArray[np.uint8]:
    """Return RGB frames (count, size, size, 3): a rippled disc moves over a rippled ground."""
    return np.stack([_frame(index, size) for index in range(count)])


def disc(index: int, size: int) -> NDArray[np.bool_]:
    """Return where (size, size) the disc is in a frame of `clip`."""
    y, x, (across, down) = _plane(index, size)
    where: NDArray[np.bool_] = (x - across) ** 2 + (y - down) ** 2 < 0.16**2
    return where


def _plane(
    index: int, size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    y, x = np.mgrid[0:size, 0:size].astype(np.float64) / size
    return y, x, (0.35 + 0.03 * index, 0.45 + 0.015 * index)


def _frame(index: int, size: int) -> NDArray[np.uint8]:
    y, x, (across, down) = _plane(index, size)
    channels = np.arange(3)
    y, x = y[..., None], x[..., None]
    ground = 0.5 + 0.4 * np.sin(14 * x + channels) * np.cos(11 * y - channels)
    ripple = np.sin(40 * (x - across) + 2 * channels) * np.sin(36 * (y - down))
    inside = (x - across) ** 2 + (y - down) ** 2 < 0.16 * 0.16
    rgb = np.where(inside, 0.5 + 0.45 * ripple, ground)
    return np.round(255 * rgb).astype(np.uint8)

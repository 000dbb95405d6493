"""Clips in other colours than they were made in: a thing is followed whatever its colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_GRAY, _EXCHANGED = 0.4, 0.5


def recoloured(frames: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """Return frames (T, H, W, 3) alike in other colours: gray, or paler, or channels exchanged."""
    mix = _mix(rng)
    rows = [value for row in mix for value in (*row, 0.0)]
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    return np.stack([np.asarray(image.convert("RGB", rows)) for image in images])


def _mix(rng: Generator) -> NDArray[np.float64]:
    """Draw what each channel (a row) takes of red, green and blue."""
    channels = rng.permutation(3) if rng.random() < _EXCHANGED else np.arange(3)
    gray = 1.0 if rng.random() < _GRAY else rng.random()
    mixed: NDArray[np.float64] = gray * np.array([_LUMA] * 3) + (1 - gray) * np.eye(3)[channels]
    return mixed

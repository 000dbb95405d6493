"""The photographs that ship with Phoneward, as inputs to compare artifacts with PyTorch on."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phoneward.export.models.family import Examples
from phoneward.runtime.images import load_image, prepare

if TYPE_CHECKING:
    from phoneward.bundle import Stage

NOISE_SAMPLES = 3
_SEED = 0


def photographs() -> tuple[Path, ...]:
    """Return the photographs that ship with Phoneward, in a fixed order."""
    folder = Path(str(resources.files("phoneward.export") / "photos"))
    return tuple(sorted(folder.glob("*.jpg")))


def images(stage: Stage) -> Examples:
    """Every photograph, prepared as the stage's image spec says, and three samples of noise.

    Raises `ValueError` for a stage that takes anything but one image.
    """
    if stage.image is None or len(stage.inputs) != 1:
        raise ValueError(f"stage '{stage.name}' does not take one image")
    tensor = stage.inputs[0]
    real = [prepare(load_image(path), stage.image, tensor) for path in photographs()]
    noise = np.random.default_rng(_SEED).integers(0, 256, (NOISE_SAMPLES, *tensor.shape))
    stacked = np.concatenate([np.stack(real), noise]).round().astype(np.uint8)
    return Examples({tensor.name: stacked}, np.arange(len(stacked)) < len(real))

"""What PyTorch answers on real photographs and on noise; every artifact is held against it.

The answers come from the model as its family builds it, before any rewrite, so that the gate
covers rewrites and converters alike. They are stored in the bundle: a board without torch can
verify its artifacts.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.runtime.images import load_image, prepare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import nn

    from phoneward.bundle import Stage

NOISE_SAMPLES = 3
_SEED = 0


def photographs() -> tuple[Path, ...]:
    """Return the photographs that ship with Phoneward, in a fixed order."""
    folder = Path(str(resources.files("phoneward.export") / "photos"))
    return tuple(sorted(folder.glob("*.jpg")))


def write_reference(stages: Mapping[str, nn.Module], specs: tuple[Stage, ...], out: Path) -> None:
    """Write `reference.npz`.

    For every stage, stacked over samples: `<stage>/input/<tensor>` (uint8 for images),
    `<stage>/output/<tensor>` float32, and `<stage>/real`, true where a sample is a photograph.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for spec in specs:
        arrays |= _stage_arrays(stages[spec.name], spec)
    with out.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def _stage_arrays(module: nn.Module, spec: Stage) -> dict[str, NDArray[Any]]:
    import torch

    images, real = _samples(spec)
    with torch.no_grad():
        results = [module(torch.from_numpy(image.astype(np.float32))) for image in images]
    rows = [(row,) if isinstance(row, torch.Tensor) else tuple(row) for row in results]
    arrays: dict[str, NDArray[Any]] = {
        f"{spec.name}/input/{spec.inputs[0].name}": images,
        f"{spec.name}/real": real,
    }
    for index, output in enumerate(spec.outputs):
        stacked = np.stack([row[index].numpy() for row in rows]).astype(np.float32)
        arrays[f"{spec.name}/output/{output.name}"] = stacked
    return arrays


def _samples(spec: Stage) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    if spec.image is None or len(spec.inputs) != 1:
        raise ValueError(f"stage '{spec.name}' does not take one image")
    tensor = spec.inputs[0]
    real = [prepare(load_image(path), spec.image, tensor) for path in photographs()]
    noise = np.random.default_rng(_SEED).integers(0, 256, (NOISE_SAMPLES, *tensor.shape))
    images = np.concatenate([np.stack(real), noise]).round().astype(np.uint8)
    return images, np.arange(len(images)) < len(real)

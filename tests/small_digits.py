"""A data set of a few hundred pictures that small networks learn in seconds: bars and blocks."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoneward.export.train.data.dataset import SIDE, Dataset, Split

CLASSES = 4


def pictures(count: int, seed: int) -> Split:
    """A bright row of blocks whose place tells the class, on noise; some are very noisy."""
    random = np.random.default_rng(seed)
    classes = np.arange(count) % CLASSES
    noise = np.where(random.random(count) < 0.3, 200, 60)
    images = random.random((count, SIDE, SIDE)) * noise[:, None, None]
    for index, one in enumerate(classes):
        images[index, 4 + 5 * one : 8 + 5 * one, 4:24] += 120
    return Split(images.clip(0, 255).astype(np.uint8), classes.astype(np.int64))


def dataset(train: int = 240, test: int = 80, name: str = "bars") -> Dataset:
    labels = tuple(f"bar {index}" for index in range(CLASSES))
    return Dataset(name, labels, pictures(train, 1), pictures(test, 2))


def idx(array: NDArray[np.uint8]) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_idx(folder: Path, train: Split, test: Split, *, packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, split in (("train", train), ("t10k", test)):
        for kind, array in (
            ("images-idx3-ubyte", split.images),
            ("labels-idx1-ubyte", split.classes.astype(np.uint8)),
        ):
            content = idx(array)
            name = f"{prefix}-{kind}"
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)

"""IDX files, the format of MNIST and its successors.

A file starts with two zero bytes, a type (8: unsigned bytes) and the number of dimensions; then
come the dimensions as big-endian 32-bit numbers, and the values (yann.lecun.com/exdb/mnist).
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoneward.errors import DataError
from phoneward.export.models.cbnet.specs import SIDE
from phoneward.export.train.data.dataset import Dataset, Split

_UNSIGNED_BYTES = 8
_IMAGES, _LABELS = 3, 1
_PARTS = {"train": "train", "test": "t10k"}
_KINDS = {_IMAGES: "images-idx3-ubyte", _LABELS: "labels-idx1-ubyte"}
# torchvision leaves the first form, old downloads unpack to the second
_SUFFIXES = ("", ".gz")


def has_idx(folder: Path) -> bool:
    """Tell whether a folder holds any IDX file by name."""
    return folder.is_dir() and any("-ubyte" in path.name for path in folder.iterdir())


def read_idx_dataset(folder: Path, name: str, labels: tuple[str, ...] | None = None) -> Dataset:
    """Read the four files of a data set, packed by gzip or not.

    Without `labels` the classes are called by their numbers, up to the largest in the files.

    Raises:
        DataError: a file is missing, is no IDX file of its kind, is cut short or has bytes too
            many; images and labels differ in number, images are not 28 x 28, or a label is not
            below the number of classes.
    """
    splits = {part: _split(folder, prefix) for part, prefix in _PARTS.items()}
    if labels is None:
        top = max(int(split.classes.max(initial=0)) for split in splits.values())
        labels = tuple(str(index) for index in range(top + 1))
    for part, prefix in _PARTS.items():
        beyond = splits[part].classes >= len(labels)
        if beyond.any():
            where = int(np.flatnonzero(beyond)[0])
            raise DataError(
                _file(folder, prefix, _LABELS),
                f"label {splits[part].classes[where]} at {where} is out of range: "
                f"there are {len(labels)} classes",
            )
    return Dataset(name, labels, splits["train"], splits["test"])


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes with that many dimensions.

    Raises:
        DataError: it cannot be read, or is not that.
    """
    content = _content(path)
    expected = bytes((0, 0, _UNSIGNED_BYTES, dimensions))
    if content[:4] != expected:
        raise DataError(
            path, f"magic number {content[:4].hex() or 'missing'}, not {expected.hex()}"
        )
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(path, "truncated in its header")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
    found, stated = len(content) - header, math.prod(shape)
    if found != stated:
        how = "truncated" if found < stated else "too long"
        raise DataError(path, f"{how}: {found} bytes of values where {stated} are stated")
    return np.frombuffer(content, np.uint8, stated, header).reshape(shape)


def _split(folder: Path, prefix: str) -> Split:
    images_file, labels_file = (_file(folder, prefix, kind) for kind in (_IMAGES, _LABELS))
    images, labels = read_idx(images_file, _IMAGES), read_idx(labels_file, _LABELS)
    if images.shape[1:] != (SIDE, SIDE):
        raise DataError(images_file, f"images of {images.shape[1]}x{images.shape[2]}, not 28x28")
    if len(images) != len(labels):
        raise DataError(
            labels_file, f"{len(labels)} labels for {len(images)} images in {images_file.name}"
        )
    return Split(images, labels.astype(np.int64))


def _file(folder: Path, prefix: str, kind: int) -> Path:
    name = f"{prefix}-{_KINDS[kind]}"
    candidates = [folder / f"{name}{suffix}" for suffix in _SUFFIXES]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise DataError(folder, f"no {name} or {name}.gz in it")
    return found


def _content(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(path, f"damaged or truncated gzip ({error})") from error
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from error

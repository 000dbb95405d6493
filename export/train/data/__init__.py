"""Data sets by name or folder: where their files are, and what their classes are called."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from phoneward.cache_root import default_root
from phoneward.errors import DataError, MissingExtra
from phoneward.export.train.data.dataset import Dataset
from phoneward.export.train.data.idx import has_idx, read_idx_dataset
from phoneward.export.train.data.image_folder import read_image_folder

_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
_KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

FOLDER_VARIABLE = "PHONEWARD_DATA"
"""Environment variable that names a folder with a folder of files for each data set."""


@dataclass(frozen=True)
class Known:
    """A data set that has a name: its labels, torchvision's class for it, where systems put it."""

    labels: tuple[str, ...]
    torchvision: str
    packaged: Path | None = None


KNOWN = {
    "mnist": Known(_DIGITS, "MNIST"),
    # Debian's package dataset-fashion-mnist
    "fashion-mnist": Known(_CLOTHES, "FashionMNIST", Path("/usr/share/datasets/fashion-mnist")),
    "kmnist": Known(_KANA, "KMNIST"),
}


def open_dataset(data: str, *, seed: int = 0, download: bool = True) -> Dataset:
    """Read a data set: `mnist`, `fashion-mnist`, `kmnist`, or a folder.

    A known name is looked for in `$PHONEWARD_DATA/<name>`, where the system's packages put it, and
    in Phoneward's cache; not found, it is downloaded there by torchvision if `download`. A folder
    holds four IDX files, as those names do, or images in a folder for each class (see
    `read_image_folder`, which `seed` is for).

    Raises:
        DataError: there is no such name or folder, the download failed, or the files are bad.
    """
    if data in KNOWN:
        folder = _find(data) or (_download(data) if download else None)
        if folder is None:
            raise DataError(data, "not on this machine" + _where(data))
        return read_idx_dataset(folder, data, KNOWN[data].labels)
    folder = Path(data)
    if not folder.is_dir():
        raise DataError(data, f"neither a folder nor one of {', '.join(KNOWN)}")
    if has_idx(folder):
        known = KNOWN.get(folder.resolve().name)
        return read_idx_dataset(folder, folder.resolve().name, known.labels if known else None)
    return read_image_folder(folder, seed=seed)


def is_known(dataset: Dataset) -> bool:
    """Tell whether a data set is one of `KNOWN` by its name and its labels."""
    return dataset.name in KNOWN and dataset.labels == KNOWN[dataset.name].labels


def _find(name: str) -> Path | None:
    places = [default_root() / "data" / name]
    if packaged := KNOWN[name].packaged:
        places.insert(0, packaged)
    if own := os.environ.get(FOLDER_VARIABLE):
        places.insert(0, Path(own) / name)
    return next((place for place in places if has_idx(place)), None)


def _download(name: str) -> Path:
    """Let torchvision fetch the four files into the cache; it checks their MD5."""
    try:
        from torchvision import datasets
    except ModuleNotFoundError as error:
        raise MissingExtra("torchvision", "export") from error
    root = default_root() / "data" / ".download"
    kind = getattr(datasets, KNOWN[name].torchvision)
    try:
        kind(root, download=True)
        raw = root / KNOWN[name].torchvision / "raw"
        folder = default_root() / "data" / name
        raw.rename(folder)  # whole or not at all: a part of the files would be taken for all
    except (OSError, RuntimeError) as error:
        raise DataError(name, "could not be downloaded" + _where(name)) from error
    return folder


def _where(name: str) -> str:
    packaged = KNOWN[name].packaged
    places = f"a folder with its four IDX files, as --data or ${FOLDER_VARIABLE}/{name}"
    return f"; it may be {places}" + (f", or {packaged}" if packaged else "")

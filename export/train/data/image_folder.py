"""Any folder of images by class, as a data set of grey 28 x 28 images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from phoneward.errors import DataError, ImageError
from phoneward.export.models.cbnet.specs import IMAGE, SIDE
from phoneward.export.train.data.dataset import Dataset, Split
from phoneward.runtime.images import images_in, load_image, prepare
from phoneward.spec import TensorSpec

_TENSOR = TensorSpec(name="image", shape=(1, 1, SIDE, SIDE), layout="NCHW")
_TEST_SHARE = 6
_SPLITS = ("train", "test")


def read_image_folder(folder: Path, *, seed: int = 0) -> Dataset:
    """Read `<class>/*.png` and the like; every image becomes grey, 28 x 28.

    It is prepared as an exported network's image is.

    With folders `train` and `test` that hold those of the classes, they are taken as they are;
    otherwise every sixth image of a class, chosen by `seed`, is for testing. Classes are in the
    order of their names; hidden files, and files that are no images by their suffix, are passed
    over.

    Raises:
        DataError: less than two classes, a class with less than two images, or other classes to
            test with than to train on.
        ImageError: an image cannot be read.
    """
    if all((folder / name).is_dir() for name in _SPLITS):
        train, test = (_by_class(folder / name) for name in _SPLITS)
        if strange := sorted(test.keys() - train.keys()):
            raise DataError(folder, f"class '{strange[0]}' is in test and not in train")
    else:
        train, test = _divided(_by_class(folder), folder, seed)
    labels = tuple(train)
    if len(labels) < 2:
        raise DataError(folder, f"one class ('{labels[0]}'): there is nothing to tell apart")
    return Dataset(folder.resolve().name, labels, _read(train, labels), _read(test, labels))


def _by_class(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            try:
                found[child.name] = images_in(child)
            except ImageError as error:
                raise DataError(child, "no images in the folder of a class") from error
    if not found:
        raise DataError(folder, "neither IDX files nor folders of images by class in it")
    return found


def _divided(
    classes: dict[str, list[Path]], folder: Path, seed: int
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    random = np.random.default_rng(seed)
    train, test = {}, {}
    for label, files in classes.items():
        if len(files) < 2:
            raise DataError(folder / label, "one image is not enough to train and to test with")
        chosen = set(random.permutation(len(files))[: max(1, len(files) // _TEST_SHARE)].tolist())
        test[label] = [file for index, file in enumerate(files) if index in chosen]
        train[label] = [file for index, file in enumerate(files) if index not in chosen]
    return train, test


def _read(classes: dict[str, list[Path]], labels: tuple[str, ...]) -> Split:
    images, numbers = [], []
    for label, files in classes.items():
        for file in files:
            images.append(prepare(load_image(file), IMAGE, _TENSOR)[0, 0].astype(np.uint8))
            numbers.append(labels.index(label))
    return Split(np.stack(images), np.array(numbers, np.int64))

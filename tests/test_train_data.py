"""Data sets: IDX files and folders of images, whole, damaged, and of no use."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from phoneward.errors import DataError
from phoneward.export.models.cbnet.specs import SIDE
from phoneward.export.train.data import open_dataset
from phoneward.export.train.data.dataset import Dataset, Split, hold_out
from phoneward.export.train.data.idx import read_idx
from tests.small_digits import idx, pictures, write_idx

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
CLOTHES = Path("/usr/share/datasets/fashion-mnist")
MNIST = Path(__file__).parents[2] / "shared/data/mnist"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_idx(tmp_path / "idx", pictures(12, 0), pictures(8, 1))
    return tmp_path / "idx"


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_as_they_were_written(tmp_path: Path, packed: bool) -> None:
    train, test = pictures(12, 0), pictures(8, 1)
    write_idx(tmp_path, train, test, packed=packed)
    found = open_dataset(str(tmp_path))
    assert found.labels == ("0", "1", "2", "3")
    np.testing.assert_array_equal(found.train.images, train.images)
    np.testing.assert_array_equal(found.train.classes, train.classes)
    np.testing.assert_array_equal(found.test.images, test.images)


def test_a_folder_with_a_known_name_gets_its_labels(tmp_path: Path) -> None:
    write_idx(tmp_path / "fashion-mnist", pictures(20, 0), pictures(8, 1))
    train = pictures(20, 0)
    classes = np.arange(20) % 10
    write_idx(tmp_path / "fashion-mnist", Split(train.images, classes), pictures(8, 1))
    assert open_dataset(str(tmp_path / "fashion-mnist")).labels[1] == "trouser"


def test_a_named_data_set_is_found_in_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = pictures(20, 0)
    write_idx(tmp_path / "kmnist", Split(train.images, np.arange(20) % 10), pictures(8, 1))
    monkeypatch.setenv("PHONEWARD_DATA", str(tmp_path))
    found = open_dataset("kmnist", download=False)
    assert (found.name, found.labels[0], len(found.train)) == ("kmnist", "o", 20)


def test_a_named_data_set_that_is_nowhere_says_where_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHONEWARD_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"kmnist: not on this machine; .*\$PHONEWARD_DATA/kmnist"):
        open_dataset("kmnist", download=False)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a folder nor one of mnist, fashion-mnist, kmnist"):
        open_dataset(str(tmp_path / "nothing"))


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=3, max_dims=3, max_side=6)))
def test_idx_round_trip(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(idx(array))
    np.testing.assert_array_equal(read_idx(path, 3), array)


@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_are_an_array_or_a_clear_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("idx") / ("file.gz" if packed else "file")
    path.write_bytes(content)
    header = bytes((0, 0, 8, 1))
    if not packed and content[:4] == header and content[4:8] == struct.pack(">I", len(content) - 8):
        assert idx(read_idx(path, 1)) == content
        return
    with pytest.raises(DataError) as caught:
        read_idx(path, 1)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (IMAGES, lambda b: b"\0\0\x09\x03" + b[4:], "magic number 00000903, not 00000803"),
        (IMAGES, lambda b: b"", "magic number missing, not 00000803"),
        (IMAGES, lambda b: b[:9], "truncated in its header"),
        (IMAGES, lambda b: b[:-5], "truncated: 9403 bytes of values where 9408 are stated"),
        (IMAGES, lambda b: b + b"\0", "too long: 9409 bytes"),
        (LABELS, lambda b: b[:4] + struct.pack(">I", 11) + b[8:-1], "11 labels for 12 images"),
        (IMAGES, lambda b: b[:8] + struct.pack(">2I", 14, 56) + b[16:], "images of 14x56"),
    ],
)
def test_damaged_files_are_named(folder: Path, file: str, change, message: str) -> None:
    (folder / file).write_bytes(change((folder / file).read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(str(folder))
    assert "\n" not in str(caught.value)


def test_a_cut_gzip_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path, pictures(12, 0), pictures(8, 1), packed=True)
    file = tmp_path / f"{IMAGES}.gz"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match="damaged or truncated gzip"):
        open_dataset(str(tmp_path))
    file.write_bytes(gzip.compress(b"\0\0\x08\x03")[:10] + b"nonsense")
    with pytest.raises(DataError, match="damaged or truncated gzip"):
        open_dataset(str(tmp_path))


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / LABELS).unlink()
    with pytest.raises(DataError, match=f"no {LABELS} or {LABELS}.gz in it"):
        open_dataset(str(folder))


def test_a_label_out_of_range_is_placed(tmp_path: Path) -> None:
    train = pictures(20, 0)
    classes = np.arange(20) % 10
    classes[7] = 11
    write_idx(tmp_path / "mnist", Split(train.images, classes), pictures(8, 1))
    with pytest.raises(DataError, match="label 11 at 7 is out of range: there are 10 classes"):
        open_dataset(str(tmp_path / "mnist"))


def _images(folder: Path, count: int, side: int = SIDE) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("L", (side, side), 10 * index).save(folder / f"{index}.png")


def test_a_folder_of_images_by_class(tmp_path: Path) -> None:
    _images(tmp_path / "cat", 12)
    _images(tmp_path / "dog", 7, side=40)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / "._0.png").write_bytes(b"what some systems leave beside an image")
    found = open_dataset(str(tmp_path), seed=3)
    assert found.labels == ("cat", "dog")
    assert np.bincount(found.train.classes).tolist() == [10, 6]
    assert np.bincount(found.test.classes).tolist() == [2, 1]
    again = open_dataset(str(tmp_path), seed=3)
    np.testing.assert_array_equal(found.test.images, again.test.images)
    # an image of the size that is wanted stays as it is
    levels = {int(image[0, 0]) for image in found.train.images[found.train.classes == 0]}
    levels |= {int(image[0, 0]) for image in found.test.images[found.test.classes == 0]}
    assert levels == {10 * index for index in range(12)}


def test_a_folder_with_train_and_test(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 2)):
        for label in ("cat", "dog"):
            _images(tmp_path / part / label, count)
    found = open_dataset(str(tmp_path))
    assert (len(found.train), len(found.test)) == (6, 4)
    _images(tmp_path / "test" / "emu", 1)
    with pytest.raises(DataError, match="class 'emu' is in test and not in train"):
        open_dataset(str(tmp_path))


def test_a_folder_with_one_class_has_nothing_to_tell_apart(tmp_path: Path) -> None:
    _images(tmp_path / "cat", 12)
    with pytest.raises(DataError, match=r"one class \('cat'\)"):
        open_dataset(str(tmp_path))


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither IDX files nor folders of images"):
        open_dataset(str(tmp_path))
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="no images in the folder of a class"):
        open_dataset(str(tmp_path))


def test_a_class_without_an_image_to_train_on() -> None:
    split = pictures(8, 0)
    with pytest.raises(DataError, match="train: no image of class 'e'"):
        Dataset("five", tuple("abcde"), split, split)


def test_one_class_in_idx_files(tmp_path: Path) -> None:
    split = Split(pictures(4, 0).images, np.zeros(4, np.int64))
    write_idx(tmp_path, split, split)
    with pytest.raises(DataError, match="1 class is not enough to tell apart"):
        open_dataset(str(tmp_path))


def test_what_is_held_out_is_not_trained_on() -> None:
    split = pictures(50, 0)
    rest, held = hold_out(split, 10, seed=1)
    assert sorted([*rest, *held]) == list(range(50))
    assert len(held) == 10
    assert len(hold_out(split, 1000, seed=1)[1]) == 10  # a fifth at most


@given(st.integers(5, 30), st.integers(1, 30), st.integers(0, 99))
def test_every_class_keeps_an_image_to_train_on(count: int, classes: int, seed: int) -> None:
    split = Split(np.zeros((count, SIDE, SIDE), np.uint8), np.arange(count) % classes)
    try:
        rest, held = hold_out(split, 1000, seed)
    except DataError:
        assert classes >= count
        return
    assert sorted([*rest, *held]) == list(range(count))
    assert set(split.classes[rest]) == set(split.classes)


def test_too_few_images_to_hold_some_out() -> None:
    with pytest.raises(DataError, match="4 images are too few to hold some out"):
        hold_out(pictures(4, 0), 10, seed=0)


@pytest.mark.skipif(not CLOTHES.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_the_system() -> None:
    found = open_dataset("fashion-mnist", download=False)
    assert (len(found.train), len(found.test), found.labels[9]) == (60_000, 10_000, "ankle boot")
    assert np.bincount(found.test.classes).tolist() == [1000] * 10


@pytest.mark.skipif(not MNIST.is_dir(), reason="the files of MNIST are not beside the checkout")
def test_mnist_itself() -> None:
    found = open_dataset(str(MNIST))
    assert (len(found.train), len(found.test), found.labels[9]) == (60_000, 10_000, "9")
    assert np.bincount(found.test.classes)[:3].tolist() == [980, 1135, 1032]

"""Folders in the layout of DAVIS, annotations of every kind, and folders that are malformed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phoneward.errors import DataError, ImageError, PhonewardError, UnknownName
from phoneward.runtime.evaluation import davis_sequences, evaluate
from phoneward.runtime.evaluation.annotation import (
    davis_palette,
    is_binary,
    read_annotation,
    write_annotation,
)
from phoneward.runtime.evaluation.folder import EvaluationFolder
from tests.evaluation_clips import Labels, Scripted, labels, sequence, square, write_davis

SEEN = labels({1: square(10), 2: square(50), 255: square(70)})


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two sequences: `a` whole, `b` annotated on frames 0 and 2 of four."""
    folder = tmp_path / "davis"
    write_davis(folder, sequence(dict.fromkeys(range(4), SEEN), 4, "a"))
    write_davis(folder, sequence({0: SEEN, 2: SEEN}, 4, "b"))
    return folder


def test_what_was_written_is_read(davis: Path) -> None:
    first, second = davis_sequences(davis)
    assert (first.name, second.name) == ("a", "b")
    assert first.frame_names == ("00000", "00001", "00002", "00003")
    assert (list(first.annotations), list(second.annotations)) == ([0, 1, 2, 3], [0, 2])
    for each in second.annotations.values():
        np.testing.assert_array_equal(each, SEEN)
    for _ in range(2):  # as often as one likes
        frames = list(second.frames)
        assert [frame.index for frame in frames] == [0, 1, 2, 3]
        assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [0, 1, 2, 3]


def test_a_folder_without_a_resolution(davis: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    for room in ("JPEGImages", "Annotations"):
        shutil.copytree(davis / room / "480p", flat / room)
    assert [each.name for each in davis_sequences(flat)] == ["a", "b"]


def test_names_of_frames_need_not_be_counted_from_zero(davis: Path) -> None:
    for room, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        for index in range(4):
            folder = davis / room / "480p" / "a"
            (folder / f"0000{index}.{suffix}").rename(folder / f"shot {5 * index}.{suffix}")
    (first, _) = davis_sequences(davis)
    # in natural order: 5 before 10
    assert first.frame_names == ("shot 0", "shot 5", "shot 10", "shot 15")
    assert list(first.annotations) == [0, 1, 2, 3]
    assert [int(frame.pixels[0, 0, 0]) for frame in first.frames] == [0, 1, 2, 3]


def test_sets_and_limits(davis: Path) -> None:
    sets = davis / "ImageSets" / "2017"
    sets.mkdir(parents=True)
    (sets / "val.txt").write_text("b\na\n")
    (sets / "one.txt").write_text("b\r\n\r\n")
    assert [each.name for each in davis_sequences(davis, "val")] == ["b", "a"]
    assert [each.name for each in davis_sequences(davis, "one")] == ["b"]
    assert [each.name for each in davis_sequences(davis, "val", limit=1)] == ["b"]
    assert [each.name for each in davis_sequences(davis, limit=1)] == ["a"]
    with pytest.raises(UnknownName, match="unknown image set 'test'; known: one, val"):
        davis_sequences(davis, "test")


def test_masks_come_back_under_the_names_of_the_frames(davis: Path, tmp_path: Path) -> None:
    answers = {1: dict.fromkeys(range(4), square(12)), 2: dict.fromkeys(range(4), square(50))}
    folder = EvaluationFolder(tmp_path / "out", masks=True)
    evaluate(Scripted(answers), davis_sequences(davis, limit=1), watch=folder.see)
    written = sorted((tmp_path / "out" / "masks" / "tracker" / "a").iterdir())
    assert [path.name for path in written] == [f"0000{index}.png" for index in range(4)]
    expected = labels({1: square(12), 2: square(50)})
    np.testing.assert_array_equal(read_annotation(written[2]), expected)
    with Image.open(written[2]) as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((12, 40)) == (128, 0, 0)


def test_the_palette_is_that_of_davis() -> None:
    colors = davis_palette().tolist()
    assert colors[:5] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert colors[8] == [64, 0, 0]
    assert colors[255] == [224, 224, 192]
    assert len({tuple(color) for color in colors}) == 256


def as_palette(ids: Labels) -> Image.Image:
    image = Image.fromarray(ids)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    return image


def as_colors(ids: Labels) -> Image.Image:
    colors = davis_palette()
    colors[255] = 255
    return Image.fromarray(colors[ids])


@pytest.mark.parametrize(
    "make",
    [
        as_palette,
        Image.fromarray,
        as_colors,
        lambda ids: as_colors(ids).convert("RGBA"),
        lambda ids: Image.fromarray(ids).convert("LA"),
        lambda ids: Image.fromarray(ids.astype(np.uint16)),
    ],
)
def test_every_kind_of_image_says_the_same(
    make: Callable[[Labels], Image.Image], tmp_path: Path
) -> None:
    ids = labels({1: square(10), 2: square(50), 130: square(30), 254: square(80), 255: square(70)})
    make(ids).save(tmp_path / "annotation.png")
    np.testing.assert_array_equal(read_annotation(tmp_path / "annotation.png"), ids)
    assert not is_binary(tmp_path / "annotation.png")


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_black_and_white_is_one_object(mode: str, davis: Path) -> None:
    folder = davis / "Annotations" / "480p" / "a"
    for path in folder.iterdir():
        Image.fromarray(labels({255: square(10)})).convert(mode).save(path)
    (clip, _) = davis_sequences(davis)
    np.testing.assert_array_equal(clip.annotations[3], labels({1: square(10)}))
    answers = {1: dict.fromkeys(range(4), square(10))}
    assert evaluate(Scripted(answers), [clip]).tracker.jf == 1.0


def test_white_is_void_where_there_are_ids_or_a_palette(davis: Path) -> None:
    first = davis / "Annotations" / "480p" / "a" / "00000.png"
    for image in (Image.fromarray(SEEN), as_palette(labels({255: square(10)}))):
        image.save(first)
        assert 255 in davis_sequences(davis)[0].annotations[0]


def spoil(davis: Path, how: str) -> None:
    """Make one thing wrong."""
    frames, annotations = (davis / room / "480p" / "a" for room in ("JPEGImages", "Annotations"))
    sets = davis / "ImageSets"
    sets.mkdir()
    (sets / "val.txt").write_text("a\n")
    wrongs: dict[str, Callable[[], object]] = {
        "no frames": lambda: shutil.rmtree(davis / "JPEGImages"),
        "no annotations": lambda: shutil.rmtree(davis / "Annotations"),
        "sequence without frames": lambda: shutil.rmtree(frames),
        "empty sequence": lambda: [path.unlink() for path in frames.iterdir()],
        "nothing annotated": lambda: [path.unlink() for path in annotations.iterdir()],
        "first annotation": lambda: (annotations / "00000.png").unlink(),
        "stray annotation": lambda: write_annotation(annotations / "00009.png", SEEN),
        "two of a name": lambda: Image.new("RGB", (100, 100)).save(frames / "00001.png"),
        "size": lambda: write_annotation(annotations / "00002.png", SEEN[:, :60]),
        "frame size": lambda: Image.new("RGB", (100, 90)).save(frames / "00002.jpg"),
        "damaged": lambda: (annotations / "00001.png").write_bytes(b"not a PNG"),
        "cut": lambda: (annotations / "00001.png").write_bytes(
            (annotations / "00001.png").read_bytes()[:100]
        ),
        "damaged frame": lambda: (frames / "00001.jpg").write_bytes(b"not a JPEG"),
        "strange color": lambda: Image.new("RGB", (100, 100), (1, 2, 3)).save(
            annotations / "00001.png"
        ),
        "deep": lambda: Image.fromarray(np.full((100, 100), 300, np.uint16)).save(
            annotations / "00001.png"
        ),
        "no object": lambda: [write_annotation(path, labels({})) for path in annotations.iterdir()],
        "unknown name": lambda: (sets / "val.txt").write_text("zebra\n"),
        "empty set": lambda: (sets / "val.txt").write_text("\n"),
        "named twice": lambda: (sets / "val.txt").write_text("a\nb\na\n"),
        "two sets": lambda: [
            (sets / "2016").mkdir(),
            (sets / "2016" / "val.txt").write_text("a\n"),
        ],
    }
    wrongs[how]()


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("no frames", DataError, "no folder JPEGImages in it; it needs JPEGImages and Annotations"),
        ("no annotations", DataError, "no folder Annotations in it"),
        ("sequence without frames", DataError, "JPEGImages/480p/a: no such folder"),
        ("empty sequence", DataError, "JPEGImages/480p/a: holds no frame: no .jpg or .jpeg or"),
        ("nothing annotated", DataError, "Annotations/480p/a: holds no annotation: no .png"),
        ("first annotation", DataError, "the first frame, 00000.jpg, has no annotation"),
        ("stray annotation", DataError, "00009.png: there is no frame 00009 in "),
        ("two of a name", DataError, "JPEGImages/480p/a: two frames have one name"),
        ("size", DataError, "a: the annotation of frame 2 is 60x100, the frame 100x100"),
        ("frame size", PhonewardError, "frame 2 is 100x90, those before are 100x100"),
        ("damaged", ImageError, "00001.png: not a readable image"),
        ("cut", ImageError, "00001.png: not a readable image"),
        ("damaged frame", ImageError, "00001.jpg: not a readable image"),
        ("strange color", ImageError, "the color (1, 2, 3) of the pixel 0,0 names no object"),
        ("deep", ImageError, "levels above 255 name no object"),
        ("no object", DataError, "a: no annotation has an object in it"),
        ("unknown name", DataError, "480p/zebra: no such folder"),
        ("empty set", DataError, "val.txt: names no sequence"),
        ("named twice", DataError, "val.txt: names 'a' twice"),
        ("two sets", DataError, "has several sets 'val'"),
    ],
)
def test_malformed_folders(
    how: str, error: type[PhonewardError], message: str, davis: Path
) -> None:
    spoil(davis, how)
    with pytest.raises(error) as caught:
        evaluate(Scripted({}), davis_sequences(davis, "val"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        davis_sequences(tmp_path / "nowhere")

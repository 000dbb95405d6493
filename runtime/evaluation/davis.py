"""Sequences from a folder that is laid out as DAVIS, YouTube-VOS and MOSE are.

`JPEGImages/[480p/]<sequence>/<frame>.jpg` or `.png` has the frames and
`Annotations/[480p/]<sequence>/<frame>.png` the annotations, of every frame or of some.
`ImageSets/**/<set>.txt`, where there is one, names a sequence a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phoneward.errors import DataError, UnknownName
from phoneward.runtime.evaluation.annotation import is_binary, read_annotation
from phoneward.runtime.evaluation.sequence import VOID, Sequence
from phoneward.runtime.frames import ASSUMED_RATE, Frame, check_size, natural_key
from phoneward.runtime.images import load_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAMES, ANNOTATIONS, SETS, RESOLUTION = "JPEGImages", "Annotations", "ImageSets", "480p"
_IMAGES = (".jpg", ".jpeg", ".png")


def davis_sequences(
    folder: Path, subset: str | None = None, *, limit: int | None = None
) -> tuple[Sequence, ...]:
    """Return the sequences of a folder by name, or those of `ImageSets/**/<subset>.txt` in order.

    Without a subset those are all that have annotations. Frames and annotations are read when
    they are asked for, and as often. At most `limit` sequences.

    An annotation without a palette whose sequence begins in nothing but black and white is one of
    DAVIS 2016: white is object 1. Everywhere else 255 is void, which is no object.

    Raises:
        DataError: the layout is another, a sequence is missing or begins without annotation, or
            an annotation belongs to no frame.
        UnknownName: there is no such subset.
        ImageError: the first annotation of a sequence cannot be read.
    """
    if not folder.is_dir():
        raise DataError(folder, "no such folder")
    frames, annotations = _room(folder, FRAMES), _room(folder, ANNOTATIONS)
    names = _in_set(folder, subset) if subset is not None else _all(annotations)
    return tuple(_sequence(name, frames / name, annotations / name) for name in names[:limit])


@dataclass(frozen=True)
class _Frames:
    """The images of a sequence; can be gone through more than once."""

    folder: Path
    files: tuple[Path, ...]

    def __iter__(self) -> Iterator[Frame]:
        shape = None
        for index, path in enumerate(self.files):
            frame = Frame(index, index / ASSUMED_RATE, np.asarray(load_image(path)))
            shape = shape or frame.pixels.shape
            check_size(self.folder, frame, shape)
            yield frame


@dataclass(frozen=True, eq=False)
class _Annotations(Mapping[int, "NDArray[np.uint8]"]):
    """The annotations of a sequence, read one by one; `white` is what 255 means."""

    files: Mapping[int, Path]
    white: int

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        ids = read_annotation(self.files[index])
        if self.white != VOID:
            ids[ids == VOID] = self.white
        return ids

    def __iter__(self) -> Iterator[int]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __contains__(self, index: object) -> bool:
        return index in self.files  # without this a file would be read for the answer


def _room(folder: Path, name: str) -> Path:
    room = folder / name
    if not room.is_dir():
        raise DataError(folder, f"no folder {name} in it; it needs {FRAMES} and {ANNOTATIONS}")
    inner = room / RESOLUTION
    return inner if inner.is_dir() else room


def _all(annotations: Path) -> list[str]:
    names = [each.name for each in _visible(annotations) if each.is_dir()]
    if not names:
        raise DataError(annotations, "holds no sequence: no folder is in it")
    return names


def _in_set(folder: Path, subset: str) -> list[str]:
    files = sorted((folder / SETS).rglob("*.txt"))
    found = [path for path in files if path.stem == subset]
    if not found:
        raise UnknownName("image set", subset, sorted({path.stem for path in files}))
    if len(found) > 1:
        raise DataError(folder, f"has several sets '{subset}': {', '.join(map(str, found))}")
    names = found[0].read_text(encoding="utf-8").split()
    if not names:
        raise DataError(found[0], "names no sequence")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(found[0], f"names '{twice}' twice")
    return names


def _sequence(name: str, frames: Path, annotations: Path) -> Sequence:
    images = _files(frames, _IMAGES, "frame")
    indices = {path.stem: index for index, path in enumerate(images)}
    if len(indices) < len(images):
        raise DataError(frames, "two frames have one name")
    files: dict[int, Path] = {}
    for path in _files(annotations, (".png",), "annotation"):
        if path.stem not in indices:
            raise DataError(path, f"there is no frame {path.stem} in {frames}")
        files[indices[path.stem]] = path
    if 0 not in files:
        raise DataError(
            annotations, f"the first frame, {images[0].name}, has no annotation to start from"
        )
    white = 1 if is_binary(files[0]) else VOID
    pictures = _Frames(frames, tuple(images))
    return Sequence(name, pictures, _Annotations(files, white), tuple(indices))


def _files(folder: Path, suffixes: tuple[str, ...], what: str) -> list[Path]:
    if not folder.is_dir():
        raise DataError(folder, "no such folder")
    files = [path for path in _visible(folder) if path.suffix.lower() in suffixes]
    if not files:
        raise DataError(folder, f"holds no {what}: no {' or '.join(suffixes)} is in it")
    return files


def _visible(folder: Path) -> list[Path]:
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(paths, key=lambda path: (natural_key(path.name), path.name))

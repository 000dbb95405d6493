"""Pictures decoded once and kept in one file, which every process maps instead of reading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from phoneward.cache_root import default_root
from phoneward.errors import DataError, OutputError
from phoneward.export.train.clips.pictures import Pixels
from phoneward.export.train.clips.sources import Source
from phoneward.staging import staging_folder

# what decodes and cuts: another version may give other pixels
_TOOLS = ("numpy", "pillow", "scipy", "scikit-image")
_FORMAT = 1
_INDEX, _PIXELS = "index.json", "pixels.bin"


@dataclass(frozen=True)
class Kept:
    """A picture in the file.

    Attributes:
        group: what it is used as.
        name: the file it comes from, or what drew it.
        offset: where its bytes begin.
        shape: (height, width, channels).
    """

    group: str
    name: str
    offset: int
    shape: tuple[int, int, int]


def place_of(split: str, sources: Sequence[Source]) -> Path:
    """Return the folder in Phoneward's cache for these sources in their present state."""
    state = [
        (str(source.path), source.kind, source.own, stat.st_size, stat.st_mtime_ns)
        for source in sources
        for stat in (source.path.stat(),)
    ]
    tools = [version(name) for name in _TOOLS]
    text = json.dumps([_FORMAT, split, state, tools])
    return default_root() / "clips" / f"{split}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def keep(place: Path, pictures: Callable[[], Iterable[tuple[str, str, Pixels]]]) -> None:
    """Write (group, name, pixels) to a folder unless it is there; it is whole or absent.

    Raises:
        OutputError: it cannot be written.
    """
    if place.is_dir():
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with staging_folder(place.parent, f".{place.name}-") as folder:
            _write(folder, pictures())
            try:
                folder.rename(place)
            except OSError:
                if not place.is_dir():  # another process was first: its pixels are the same
                    raise
    except OSError as error:
        raise OutputError(f"cannot write {place}: {error.strerror or error}") from error


def kept(place: Path) -> tuple[list[Kept], Pixels]:
    """Return the index and the bytes, which are mapped and read-only.

    Raises:
        DataError: the folder is damaged.
    """
    try:
        rows = json.loads((place / _INDEX).read_text(encoding="utf-8"))
        index = [Kept(group, name, at, tuple(shape)) for group, name, at, shape in rows]
        # nothing cannot be mapped
        pixels = np.memmap(place / _PIXELS, np.uint8, "r") if index else np.zeros(0, np.uint8)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(place, "damaged; remove the folder, it is made again") from error
    if index and index[-1].offset + int(np.prod(index[-1].shape)) != pixels.size:
        raise DataError(place, "truncated; remove the folder, it is made again")
    return index, pixels


def _write(folder: Path, pictures: Iterable[tuple[str, str, Pixels]]) -> None:
    with (folder / _PIXELS).open("wb") as file:
        rows = list(_rows(file.write, pictures))
    (folder / _INDEX).write_text(json.dumps(rows), encoding="utf-8")


def _rows(
    write: Callable[[bytes], int], pictures: Iterable[tuple[str, str, Pixels]]
) -> Iterator[tuple[str, str, int, list[int]]]:
    offset = 0
    for group, name, pixels in pictures:
        write(np.ascontiguousarray(pixels).tobytes())
        yield group, name, offset, list(pixels.shape)
        offset += pixels.size

"""The pictures of a split, ready to be drawn from by any process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from phoneward.errors import UnknownName
from phoneward.export.train.clips.pictures import REGION, Pixels, read_picture, regions_of
from phoneward.export.train.clips.sources import (
    CUTOUT,
    DRAWING,
    PHOTO,
    SPLITS,
    Source,
    of_the_system,
    of_the_user,
    packaged,
)
from phoneward.export.train.clips.store import Kept, keep, kept, place_of
from phoneward.export.train.clips.textures import texture

TEXTURE = "texture"
GROUPS = (PHOTO, CUTOUT, DRAWING, REGION, TEXTURE)

_TEXTURES = {"train": (160, 1), "held-out": (60, 2)}
_PACKAGED = "packaged"
_OWN = "own-"
_OWN_SHARE = 0.5
_FEW = 6


class Pool:
    """Pictures by group: `photo` and `texture` are RGB, the others RGBA and cut out.

    A pool is a name for folders of the cache: it is opened anew from there after pickling. Where
    `photographs` are named it has those alone, what is cut from them, and the textures.
    """

    def __init__(
        self, split: str, places: Sequence[Path], photographs: frozenset[str] | None = None
    ) -> None:
        self.split, self.places, self.photographs = split, tuple(places), photographs
        self._entries: list[tuple[Kept, Pixels]] = []
        for place in self.places:
            index, pixels = kept(place)
            self._entries += [(entry, pixels) for entry in index if self._has(entry)]
        self._groups: dict[str, list[int]] = {}
        for number, (entry, _) in enumerate(self._entries):
            self._groups.setdefault(entry.group, []).append(number)

    def __reduce__(self) -> tuple[type[Pool], tuple[str, tuple[Path, ...], frozenset[str] | None]]:
        """Pickle as the places and the names of photographs alone."""
        return Pool, (self.split, self.places, self.photographs)

    def _has(self, entry: Kept) -> bool:
        if self.photographs is None or entry.group == TEXTURE:
            return True
        return entry.name in self.photographs

    @property
    def digest(self) -> str:
        """Return a checksum of what is drawn from: the pictures' groups, names and sizes."""
        rows = [(entry.group, Path(entry.name).name, entry.shape) for entry, _ in self._entries]
        return hashlib.sha256(json.dumps([self.split, rows]).encode()).hexdigest()

    def count(self, group: str) -> int:
        """Return how many pictures a group has, the user's included."""
        return len(self._groups.get(group, ())) + len(self._groups.get(_OWN + group, ()))

    def names(self) -> set[str]:
        """Return the files that the pictures come from, and the names of the textures."""
        return {entry.name for entry, _ in self._entries}

    def few(self, rng: np.random.Generator) -> Pool:
        """Draw a pool of six of the photographs, what is cut from those, and all textures.

        What is made from it looks like its ground, and like what else is in sight.
        """
        names = [one.name for one, _ in self._entries if one.group.removeprefix(_OWN) == PHOTO]
        chosen = rng.choice(names, min(_FEW, len(names)), replace=False)
        return Pool(self.split, self.places, frozenset(chosen.tolist()))

    def pick(self, group: str, rng: np.random.Generator) -> Pixels:
        """Draw a picture (H, W, 3 or 4) of a group; half of them are the user's if there are any.

        Raises:
            KeyError: the group is empty.
        """
        theirs, own = self._groups.get(group), self._groups.get(_OWN + group)
        if own and theirs:
            numbers = own if rng.random() < _OWN_SHARE else theirs
        else:
            numbers = own or self._groups[group]
        entry, pixels = self._entries[numbers[rng.integers(len(numbers))]]
        size = int(np.prod(entry.shape))
        return np.asarray(pixels[entry.offset : entry.offset + size]).reshape(entry.shape)


def open_pool(split: str, folders: Sequence[Path] = (), *, system: bool = True) -> Pool:
    """Open the pictures of a split; the first time they are decoded and kept in the cache.

    Args:
        split: `train` or `held-out`, which have no picture in common.
        folders: the user's folders of photographs, and of PNGs with alpha as cut-outs.
        system: whether Debian packages that are installed serve `train`, too; `held-out` has
            nothing of them.

    Raises:
        UnknownName: no such split.
        MissingExtra: scikit-image or scikit-learn is not installed.
        DataError: a folder is not there or empty, or a picture in it is of no use.
        ImageError: a picture cannot be read.
        OutputError: the cache cannot be written.
    """
    if split not in SPLITS:
        raise UnknownName("split", split, SPLITS)
    parts = {"own": of_the_user(folders), _PACKAGED: packaged(split)}
    if system and split == "train":
        parts["system"] = of_the_system()
    return Pool(split, [_kept_part(split, part, found) for part, found in parts.items() if found])


def _kept_part(split: str, part: str, sources: Sequence[Source]) -> Path:
    """Keep a part of a split, so that what the user adds is read alone, and return where."""
    place = place_of(f"{split}-{part}", sources)
    drawn = _TEXTURES[split] if part == _PACKAGED else (0, 0)
    keep(place, lambda: chain(_pictures(sources), _textures(split, *drawn)))
    return place


def _pictures(sources: Sequence[Source]) -> Iterator[tuple[str, str, Pixels]]:
    for source in sources:
        picture = read_picture(source)
        if picture is None:
            continue
        group, pixels = picture
        prefix, name = _OWN if source.own else "", str(source.path)
        yield prefix + group, name, pixels
        if group == PHOTO:
            yield from ((prefix + REGION, name, region) for region in regions_of(pixels))


def _textures(split: str, count: int, seed: int) -> Iterator[tuple[str, str, Pixels]]:
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        yield TEXTURE, f"{split}-texture-{number}", texture(rng)

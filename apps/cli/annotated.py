"""`--data` of `phoneward evaluate`: annotated sequences from a folder, or held-out clips."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phoneward.errors import DataError

if TYPE_CHECKING:
    from phoneward.export.train.clips import Clip
    from phoneward.runtime.evaluation.sequence import Sequence

_HELD_OUT = re.compile(r"held-out(?::(\d{1,5}))?")
_COUNT = 100


@dataclass(frozen=True, eq=False)
class Annotated:
    """Sequences, which are made as they are asked for, and how many frames they have in all."""

    sequences: Iterable[Sequence]
    frames: int


def open_annotated(data: str, subset: str | None, limit: int | None) -> Annotated:
    """Return what `--data`, `--set` and `--limit` say.

    `held-out` is the first 100 generated clips that no training sees, `held-out:20` the first 20;
    all else is a folder in the layout of DAVIS.

    Raises:
        DataError: no clip is asked for, or a set of the clips; or as `davis_sequences`.
        MissingExtra: a package with the pictures of the clips is not installed.
    """
    match = _HELD_OUT.fullmatch(data)
    if match is None:
        from phoneward.runtime.evaluation.davis import davis_sequences

        found = davis_sequences(Path(data), subset, limit=limit)
        return Annotated(found, sum(len(each.frame_names) for each in found))
    if subset is not None:
        raise DataError(data, f"has no sets, so that there is no '{subset}'; write {data}:N")
    count = int(match[1] or _COUNT)
    if not count:
        raise DataError(data, "is no clip at all")
    return _held_out(min(count, limit or count))


def _held_out(count: int) -> Annotated:
    from phoneward.export.train.clips import held_out
    from phoneward.export.train.clips.davis import HELD_OUT_FRAMES

    return Annotated(sequences_of(held_out(count)), count * HELD_OUT_FRAMES)


def sequences_of(clips: Iterable[tuple[str, Clip]]) -> Iterator[Sequence]:
    """Yield generated clips by name as annotated sequences."""
    from phoneward.runtime.evaluation.sequence import Sequence
    from phoneward.runtime.frames import ASSUMED_RATE, Frame

    for name, clip in clips:
        names = tuple(f"{index:05d}" for index in range(len(clip.frames)))
        frames = [
            Frame(index, index / ASSUMED_RATE, pixels) for index, pixels in enumerate(clip.frames)
        ]
        yield Sequence(name, frames, dict(enumerate(clip.masks)), names)

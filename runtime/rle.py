"""Masks as run lengths, as COCO stores them: uncompressed counts and their compressed string.

The format is that of the COCO annotations (cocodataset.org, "Data format", and `maskApi` of
pycocotools): runs of equal pixels down the columns, of zeros and ones in turn, zeros first. In the
string, a count from the fourth on is its difference to the one two before; a number is cut into
groups of five bits, the lowest first, each a character from 48 on whose sixth bit says that more
follow; the sign is that of the last group's highest bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from phoneward.errors import InvalidSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Rle(TypedDict):
    """A mask's size, [height, width], and its compressed counts."""

    size: list[int]
    counts: str


def encode(mask: NDArray[np.bool_]) -> Rle:
    """Encode a mask, bool of shape (H, W)."""
    height, width = mask.shape
    return {"size": [height, width], "counts": compress(counts_of(mask))}


def decode(rle: Rle | Mapping[str, object]) -> NDArray[np.bool_]:
    """Decode to bool of shape (H, W); `counts` may be the string or uncompressed counts.

    Raises:
        InvalidSpec: counts that are damaged, or do not fill the size.
    """
    size, counts = rle.get("size"), rle.get("counts")
    if isinstance(counts, str):
        counts = decompress(counts)
    if not isinstance(size, Sequence) or len(size) != 2 or not isinstance(counts, Sequence):
        raise InvalidSpec("run lengths need a size of two numbers, and counts")
    height, width = size
    runs = np.array(counts, np.int64)
    if (runs < 0).any() or runs.sum() != height * width:
        raise InvalidSpec(f"run lengths of {runs.sum()} pixels do not fill {height}x{width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def counts_of(mask: NDArray[np.bool_]) -> list[int]:
    """Return the uncompressed counts of a mask (H, W); the first is of zeros and may be 0."""
    pixels = mask.T.ravel()  # down the columns
    if pixels.size == 0:
        return [0]
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff(np.concatenate(([0], changes, [pixels.size]))).tolist()
    return [0, *runs] if pixels[0] else runs


def compress(counts: Iterable[int]) -> str:
    """Return the string of uncompressed counts."""
    counts = list(counts)
    text = bytearray()
    for index, count in enumerate(counts):
        number = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            group = number & 0x1F
            number >>= 5
            more = number != (-1 if group & 0x10 else 0)
            text.append(48 + (group | 0x20 if more else group))
    return text.decode("ascii")


def decompress(text: str) -> list[int]:
    """Return the counts of a compressed string; raises `InvalidSpec` if it is damaged."""
    counts: list[int] = []
    number, shift = 0, 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise InvalidSpec(f"run lengths hold {character!r}")
        number |= (group & 0x1F) << shift
        shift += 5
        if not group & 0x20:
            if group & 0x10:
                number -= 1 << shift
            counts.append(number + counts[-2] if len(counts) > 2 else number)
            number, shift = 0, 0
    if shift:
        raise InvalidSpec("run lengths end inside a number")
    return counts

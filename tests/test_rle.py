"""Run lengths of masks: by hand, by other counts of the same mask, and there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from phoneward.errors import InvalidSpec
from phoneward.runtime.rle import compress, counts_of, decode, decompress, encode

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=24))


def test_by_hand() -> None:
    """Columns are 0 1 1, 1 0 0, 1 1 1: one zero, three ones, two zeros, three ones.

    In the string the fourth number is the difference to the second, 0.
    """
    mask = np.array([[0, 1, 1], [1, 0, 1], [1, 0, 1]], np.bool_)
    assert counts_of(mask) == [1, 3, 2, 3]
    assert encode(mask) == {"size": [3, 3], "counts": "1320"}


def test_long_and_falling_runs_by_hand() -> None:
    """1000 is 8 and 31 in groups of five bits, with 0x20 set in the first, and 0 for the sign.

    1000 = 31 * 32 + 8: 48 + (8 | 32) = 'X', 48 + (31 | 32) = 'o' and 48 + 0 = '0'. The fourth
    count less the second, 4 - 20 = -16, is 16 with the sign in it: 48 + 16 = '@'.
    """
    assert compress([1000]) == "Xo0"
    assert compress([5, 20, 5, 4]) == "5d05@"
    assert decompress("5d05@") == [5, 20, 5, 4]


@pytest.mark.parametrize(
    ("value", "counts"), [(False, [12]), (True, [0, 12])], ids=["empty", "full"]
)
def test_masks_of_one_value(value: bool, counts: list[int]) -> None:
    mask = np.full((3, 4), value)
    assert counts_of(mask) == counts
    assert (decode(encode(mask)) == mask).all()


@given(MASKS)
def test_there_and_back(mask: np.ndarray) -> None:
    rle = encode(mask)
    assert np.array_equal(decode(rle), mask)
    assert np.array_equal(decode({"size": rle["size"], "counts": counts_of(mask)}), mask)
    assert counts_of(mask)[1::2] == [] or sum(counts_of(mask)[1::2]) == mask.sum()


@given(st.lists(st.integers(0, 10**9)))
def test_counts_there_and_back(counts: list[int]) -> None:
    text = compress(counts)
    assert decompress(text) == counts
    assert all(48 <= ord(character) < 112 for character in text)


def test_down_the_columns() -> None:
    mask = np.zeros((2, 3), np.bool_)
    mask[:, 1] = True
    assert counts_of(mask) == [2, 2, 2]


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [2, 2], "counts": "3"},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2, 2], "counts": "P"},
        {"size": [2, 2], "counts": "\n"},
        {"size": [2, 2]},
        {"counts": "4"},
    ],
)
def test_damaged_run_lengths(rle: dict[str, object]) -> None:
    with pytest.raises(InvalidSpec, match="run lengths"):
        decode(rle)

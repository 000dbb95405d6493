"""J, F and their statistics: by hand, against a slow oracle, and how long they take."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from phoneward.errors import TensorMismatch
from phoneward.runtime.evaluation import contour_accuracy, region_similarity
from phoneward.runtime.evaluation.metrics import (
    Statistics,
    contour,
    dilated,
    mean_of,
    statistics,
)

Mask = NDArray[np.bool_]


def square(x: int, y: int = 40, side: int = 10) -> Mask:
    mask = np.zeros((100, 100), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def slow_contour(mask: Mask) -> set[tuple[int, int]]:
    """The rule in words: a pixel differs from its right, lower or lower right neighbor."""
    height, width = mask.shape
    return {
        (row, column)
        for row in range(height)
        for column in range(width)
        for down, along in ((0, 1), (1, 0), (1, 1))
        if row + down < height
        and column + along < width
        and mask[row, column] != mask[row + down, column + along]
    }


def slow_accuracy(predicted: Mask, annotated: Mask, tolerance: float) -> float:
    """Every pixel of a contour against every one of the other."""
    radius = math.ceil(tolerance * math.sqrt(sum(side**2 for side in predicted.shape)))
    ours, theirs = slow_contour(predicted), slow_contour(annotated)
    if not ours or not theirs:
        return 1.0 if ours == theirs else 0.0

    def share(some: set[tuple[int, int]], others: set[tuple[int, int]]) -> float:
        near = [any((a - c) ** 2 + (b - d) ** 2 <= radius**2 for c, d in others) for a, b in some]
        return sum(near) / len(near)

    precision, recall = share(ours, theirs), share(theirs, ours)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_a_square_beside_itself_by_hand() -> None:
    # 5 of 10 columns are shared, 15 covered
    assert region_similarity(square(30), square(35)) == pytest.approx(1 / 3)
    # a contour is the rim of 11 by 11 pixels, 40 of them; the tolerance ceil(0.008 * 141.4) = 2.
    # of the upper and the lower side 8 pixels each match, of the right one 2 at either end
    assert np.count_nonzero(contour(square(30))) == 40
    assert contour_accuracy(square(30), square(35)) == pytest.approx(20 / 40)


def test_precision_and_recall_are_of_the_right_sides() -> None:
    both = square(20) | square(70)
    # all of the prediction matches, half of the annotation does: 2 * 1 * 0.5 / 1.5
    assert contour_accuracy(square(20), both) == pytest.approx(2 / 3)
    assert contour_accuracy(both, square(20)) == pytest.approx(2 / 3)


def test_within_the_tolerance_all_matches_and_beyond_it_less() -> None:
    assert contour_accuracy(square(30), square(32)) == 1.0
    assert contour_accuracy(square(30), square(33)) < 1.0


def test_the_tolerance_is_of_the_frame_and_not_of_the_object() -> None:
    def large(x: int) -> Mask:
        mask = np.zeros((480, 854), np.bool_)
        mask[100:200, x : x + 100] = True
        return mask

    # ceil(0.008 * 979.65) = 8
    assert contour_accuracy(large(300), large(308)) == 1.0
    assert contour_accuracy(large(300), large(309)) < 1.0


def test_empty_masks() -> None:
    empty, full = np.zeros((100, 100), np.bool_), np.ones((100, 100), np.bool_)
    assert (region_similarity(empty, empty), contour_accuracy(empty, empty)) == (1.0, 1.0)
    for pair in ((square(3), empty), (empty, square(3))):
        assert (region_similarity(*pair), contour_accuracy(*pair)) == (0.0, 0.0)
    # a full frame has no contour, and no part in common with an empty one
    assert (region_similarity(full, empty), contour_accuracy(full, empty)) == (0.0, 1.0)


def test_contours_far_apart_have_no_accuracy() -> None:
    assert contour_accuracy(square(10), square(70)) == 0.0


@pytest.mark.parametrize(
    "pair",
    [
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.bool_)),
        (np.zeros((4, 4), np.bool_), np.zeros((4, 4, 1), np.bool_)),
        (np.zeros((4, 4), np.bool_), np.zeros((4, 5), np.bool_)),
    ],
)
def test_what_is_no_pair_of_masks_is_refused(pair: tuple[Mask, Mask]) -> None:
    for measure in (region_similarity, contour_accuracy):
        with pytest.raises(TensorMismatch):
            measure(*pair)


@st.composite
def two_masks(draw: st.DrawFn) -> tuple[Mask, Mask]:
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    kind = arrays(np.bool_, shape, elements=st.booleans(), fill=st.booleans())
    return draw(kind), draw(kind)


@settings(max_examples=300, deadline=None)
@given(two_masks(), st.sampled_from([0.0, 0.008, 0.1, 0.2, 0.5]))
def test_any_two_masks_as_the_oracle(pair: tuple[Mask, Mask], tolerance: float) -> None:
    predicted, annotated = pair
    expected = slow_accuracy(predicted, annotated, tolerance)
    assert contour_accuracy(predicted, annotated, tolerance) == pytest.approx(expected)


@settings(max_examples=200, deadline=None)
@given(two_masks())
def test_any_contour_as_the_oracle(pair: tuple[Mask, Mask]) -> None:
    rows, columns = np.nonzero(contour(pair[0]))
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == slow_contour(pair[0])


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 8, 15, 40])
def test_one_pixel_grows_to_a_disk(radius: int) -> None:
    mask = np.zeros((31, 25), np.bool_)
    mask[12, 4] = True
    rows, columns = np.indices(mask.shape)
    disk = (rows - 12) ** 2 + (columns - 4) ** 2 <= radius**2
    np.testing.assert_array_equal(dilated(mask, radius), disk)


def test_a_mask_as_large_as_the_frame_is_fast() -> None:
    noise = np.random.default_rng(0).random((2, 480, 854)) < 0.5
    taken = []
    for _ in range(7):
        began = time.perf_counter()
        contour_accuracy(noise[0], noise[1])
        taken.append(time.perf_counter() - began)
    # 7 ms where this was written; the others on the machine must not decide
    assert min(taken) < 0.05


def test_statistics_by_hand() -> None:
    values = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    found = statistics(values)
    assert found.mean == pytest.approx(0.55)
    assert found.recall == 0.5  # 0.5 itself is not above
    # borders 1, 3.25, 5.5, 7.75, 10 are rounded: frames 1 to 3, and 8 to 10
    assert found.decay == pytest.approx((1.0 + 0.9 + 0.8) / 3 - (0.3 + 0.2 + 0.1) / 3)


def test_statistics_of_one_and_of_many_frames() -> None:
    assert statistics([0.75]) == Statistics(mean=0.75, recall=1.0, decay=0.0)
    # borders beyond 255, which do not fit into a byte
    many = statistics([1.0] * 300 + [0.0] * 700)
    assert many.decay == pytest.approx(1.0)
    assert many.recall == pytest.approx(0.3)


def test_a_mean_is_over_objects() -> None:
    objects = [statistics([1.0]), statistics([0.0] * 9)]
    assert mean_of(objects) == Statistics(mean=0.5, recall=0.5, decay=0.0)

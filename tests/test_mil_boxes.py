"""Non-maximum suppression follows the rules that Core ML's format states."""

from __future__ import annotations

from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tests.mil_ops import Largest, run

OLD, NEW = ct.target.iOS15, ct.target.iOS17
F32 = np.float32


def suppressed(
    boxes: Any, scores: Any, *, score: float, most: int, iou: float = 0.4, apart: bool = False
) -> list[Tensor]:
    arrays = {"boxes": np.array(boxes, F32), "scores": np.array(scores, F32)}
    return run(
        lambda boxes, scores: mb.non_maximum_suppression(
            boxes=boxes,
            scores=scores,
            iou_threshold=F32(iou),
            score_threshold=F32(score),
            max_boxes=most,
            per_class_suppression=apart,
        ),
        arrays,
        OLD,
    )


def overlap(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Intersection over union, by corners and plain arithmetic."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.astype(float), b.astype(float)
    wide = min(ax + aw / 2, bx + bw / 2) - max(ax - aw / 2, bx - bw / 2)
    high = min(ay + ah / 2, by + bh / 2) - max(ay - ah / 2, by - bh / 2)
    common = max(wide, 0) * max(high, 0)
    return common / (aw * ah + bw * bh - common)


def reference(
    boxes: NDArray[Any], scores: NDArray[Any], iou: float, score: float, most: int, apart: bool
) -> list[int]:
    """Keep the best, strike what overlaps it, and so on over what is left."""
    best, kinds = scores.max(-1), scores.argmax(-1)
    left = [i for i in np.argsort(-best, kind="stable") if best[i] >= score]
    kept: list[int] = []
    while left and len(kept) < most:
        first, *rest = left
        kept.append(int(first))
        left = [
            i
            for i in rest
            if (apart and kinds[i] != kinds[first]) or overlap(boxes[i], boxes[first]) <= iou
        ]
    return kept or [int(best.argmax())]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 12),
    classes=st.integers(1, 3),
    most=st.integers(1, 8),
    iou=st.sampled_from([0.1, 0.35, 0.7]),
    score=st.sampled_from([-1.0, 0.4, 2.0]),
    apart=st.booleans(),
)
def test_boxes_are_kept_as_by_striking_out(
    seed: int, count: int, classes: int, most: int, iou: float, score: float, apart: bool
) -> None:
    generator = np.random.default_rng(seed)
    boxes = generator.uniform(1, 5, (2, count, 4)).astype(F32)
    scores = generator.uniform(0, 1, (2, count, classes)).astype(F32)
    results = suppressed(boxes, scores, score=score, most=most, iou=iou, apart=apart)
    picked, points, indices, counts = (result.numpy() for result in results)
    for batch in range(2):
        kept = reference(boxes[batch], scores[batch], iou, score, most, apart)
        missing = most - len(kept)
        assert indices[batch].tolist() == kept + [-1] * missing
        assert counts[batch] == len(kept)
        np.testing.assert_array_equal(picked[batch, : len(kept)], boxes[batch][kept])
        np.testing.assert_array_equal(points[batch, : len(kept)], scores[batch][kept])
        assert not picked[batch, len(kept) :].any()
        assert not points[batch, len(kept) :].any()


@pytest.mark.parametrize("apart", [False, True])
def test_the_newer_op_has_boxes_last_and_no_score_threshold(apart: bool) -> None:
    generator = np.random.default_rng(1)
    boxes = generator.uniform(1, 5, (1, 9, 4)).astype(F32)
    scores = generator.uniform(-3, -2, (1, 9, 2)).astype(F32)
    picked, points, indices = run(
        lambda boxes, scores: mb.non_maximum_suppression(
            boxes=boxes,
            scores=scores,
            iou_threshold=F32(0.3),
            max_boxes=7,
            per_class_suppression=apart,
        ),
        {"boxes": boxes.transpose(0, 2, 1).copy(), "scores": scores.transpose(0, 2, 1).copy()},
        NEW,
    )
    kept = reference(boxes[0], scores[0], 0.3, -np.inf, 7, apart)
    assert indices[0].tolist() == kept + [-1] * (7 - len(kept))
    np.testing.assert_array_equal(picked[0, :, : len(kept)].T.numpy(), boxes[0][kept])
    np.testing.assert_array_equal(points[0, :, : len(kept)].T.numpy(), scores[0][kept])


def test_boxes_that_only_touch_the_threshold_stay() -> None:
    # halves of one another: their overlap is exactly 0.5
    boxes = [[[1, 1, 2, 2], [0.5, 1, 1, 2]]]
    results = suppressed(boxes, [[[0.9], [0.8]]], score=0, most=2, iou=0.5)
    assert results[2].tolist() == [[0, 1]]
    results = suppressed(boxes, [[[0.9], [0.8]]], score=0, most=2, iou=0.49)
    assert results[2].tolist() == [[0, -1]]


def test_a_score_at_the_threshold_stays_and_the_best_where_none_does() -> None:
    boxes = [[[1, 1, 1, 1], [5, 5, 1, 1]]]
    assert suppressed(boxes, [[[0.5], [0.2]]], score=0.5, most=2)[3].tolist() == [1]
    results = suppressed(boxes, [[[0.1], [0.2]]], score=0.5, most=2)
    assert results[2].tolist() == [[1, -1]]
    assert results[3].tolist() == [1]


def test_memory_grows_with_the_boxes_and_not_with_their_pairs() -> None:
    generator = np.random.default_rng(2)
    boxes = generator.uniform(1, 5, (1, 300, 4)).astype(F32)
    scores = generator.uniform(0, 1, (1, 300, 1)).astype(F32)
    with Largest() as largest:
        counts = suppressed(boxes, scores, score=0.5, most=20, iou=0.2)[3]
    assert counts[0] > 1
    assert boxes.nbytes <= largest.size <= 2 * boxes.nbytes


def test_boxes_without_area_suppress_nothing() -> None:
    boxes = [[[1, 1, 0, 0], [1, 1, 0, 0]]]
    assert suppressed(boxes, [[[0.5], [0.4]]], score=0, most=2)[3].tolist() == [2]

"""Who is prompted when, which frames are judged, and what comes out of masks that are known."""

from __future__ import annotations

import numpy as np
import pytest

from phoneward.errors import DataError, PromptError
from phoneward.runtime.evaluation import EvaluationResult, PromptKind, Step, evaluate
from phoneward.runtime.evaluation.baselines.copy import Copy
from phoneward.runtime.evaluation.prompting import deepest_pixel, prompt_of, squared_distance
from phoneward.runtime.evaluation.protocol import labels_of
from phoneward.runtime.evaluation.sequence import Sequence, objects_in
from tests.evaluation_clips import SIDE, Labels, Mask, Scripted, labels, sequence, square

EMPTY = np.zeros((SIDE, SIDE), np.bool_)


def still(length: int, objects: dict[int, Mask]) -> dict[int, Labels]:
    return {index: labels(objects) for index in range(length)}


def test_j_and_f_of_known_masks() -> None:
    clip = sequence(still(6, {1: square(30)}), 6)
    answers = {0: square(30), 1: square(30), 2: square(35), 3: square(35), 4: EMPTY, 5: EMPTY}
    result = evaluate(Scripted({1: answers}), [clip])
    (one,) = result.tracker.sequences[0].objects
    assert (one.object, one.first, one.frames) == (1, 0, (1, 2, 3, 4))
    assert one.j == pytest.approx((1.0, 1 / 3, 1 / 3, 0.0))
    assert one.f == pytest.approx((1.0, 0.5, 0.5, 0.0))
    assert result.tracker.j.mean == pytest.approx(5 / 12)
    assert result.tracker.jf == pytest.approx((5 / 12 + 0.5) / 2)
    assert result.tracker.j.recall == 0.25
    # quarters of 4 frames share their borders: frames 1 and 2, frames 3 and 4
    assert result.tracker.j.decay == pytest.approx(2 / 3 - 1 / 6)


def test_the_first_and_the_last_frame_do_not_count() -> None:
    clip = sequence(still(4, {1: square(30)}), 4)
    wrong = Scripted({1: {1: square(30), 2: square(30)}})
    assert evaluate(wrong, [clip]).tracker.jf == 1.0
    assert wrong.tracked == [1, 2, 3]


def test_only_annotated_frames_are_judged_and_all_are_tracked() -> None:
    seen = labels({1: square(30)})
    clip = sequence({0: seen, 3: seen, 6: seen, 9: seen}, 12)
    tracker = Scripted({1: {3: square(30), 6: square(30)}})
    (one,) = evaluate(tracker, [clip]).tracker.sequences[0].objects
    assert (one.frames, one.j) == ((3, 6), (1.0, 1.0))
    assert tracker.tracked == list(range(1, 12))


def test_an_object_is_prompted_where_it_first_appears() -> None:
    annotations = still(6, {1: square(10)})
    for index in range(2, 6):
        annotations[index] = labels({1: square(10), 7: square(60)})
    tracker = Scripted({1: dict.fromkeys(range(6), square(10)), 7: {3: square(60)}})
    found = evaluate(tracker, [sequence(annotations, 6)]).tracker.sequences[0]
    assert [(index, one.object_id) for index, one in tracker.prompts] == [(0, 1), (2, 7)]
    np.testing.assert_array_equal(tracker.prompts[1][1].mask, square(60))
    assert [(one.object, one.first, one.frames) for one in found.objects] == [
        (1, 0, (1, 2, 3, 4)),
        (7, 2, (3, 4)),
    ]
    assert found.objects[1].j == (1.0, 0.0)
    # each object counts alike, however short it is seen
    assert found.j.mean == pytest.approx((1.0 + 0.5) / 2)


def test_a_first_frame_without_objects_is_waited_through() -> None:
    annotations = still(5, {})
    for index in range(1, 5):
        annotations[index] = labels({1: square(10)})
    tracker = Scripted({1: dict.fromkeys(range(5), square(10))})
    found = evaluate(tracker, [sequence(annotations, 5)]).tracker.sequences[0]
    assert found.objects[0].frames == (2, 3)
    assert len(found.frame_ms) == 4


def test_objects_of_several_sequences_count_alike() -> None:
    good = sequence(still(4, {1: square(10), 2: square(50)}), 4, "two")
    bad = sequence(still(9, {1: square(30)}), 9, "one")
    script = {1: dict.fromkeys(range(9), square(10)), 2: dict.fromkeys(range(9), square(50))}
    tracker = Scripted(script)
    result = evaluate(tracker, [good, bad])
    assert [one.jf for one in result.tracker.sequences] == [1.0, 0.0]
    assert result.tracker.j.mean == pytest.approx(2 / 3)
    assert tracker.resets == 2


def test_an_object_that_is_gone_asks_for_an_empty_mask() -> None:
    annotations = still(5, {1: square(30)})
    annotations[2] = annotations[3] = labels({})
    tracker = Scripted({1: {1: square(30), 2: square(30)}})
    (one,) = evaluate(tracker, [sequence(annotations, 5)]).tracker.sequences[0].objects
    assert one.j == one.f == (1.0, 0.0, 1.0)


def test_void_is_no_object() -> None:
    annotations = still(4, {1: square(30), 255: square(45, side=10)})
    tracker = Scripted({1: dict.fromkeys(range(4), square(30) | square(45, side=10))})
    found = evaluate(tracker, [sequence(annotations, 4)]).tracker.sequences[0]
    assert [one.object for one in found.objects] == [1]
    # as in the official evaluation, what is painted over void is painted beside the object
    assert found.objects[0].j == (0.5, 0.5)


def test_a_contested_pixel_goes_to_the_highest_logit() -> None:
    script = {1: {0: square(30)}, 2: {0: square(35)}}
    tracker = Scripted(script)
    for number in (1, 2):
        told = prompt_of(PromptKind.MASK, number, script[number][0])
        tracked = tracker.prompt(0, np.zeros((SIDE, SIDE, 3), np.uint8), told)
    found = labels_of(tracked)
    np.testing.assert_array_equal(found == 2, square(35))
    np.testing.assert_array_equal(found == 1, square(30) & ~square(35))


def test_a_contested_pixel_never_goes_to_an_object_that_does_not_claim_it() -> None:
    masks = {1: square(30), 2: square(35), 9: EMPTY}
    tracker = Scripted({number: {0: mask} for number, mask in masks.items()})
    for number in masks:
        told = prompt_of(PromptKind.MASK, number, square(5))
        tracked = tracker.prompt(0, np.zeros((SIDE, SIDE, 3), np.uint8), told)
    assert objects_in(labels_of(tracked)) == (1, 2)


def run_with_copy(kind: PromptKind) -> tuple[Scripted, EvaluationResult]:
    clip = sequence(still(4, {1: square(30)}), 4)
    tracker = Scripted({1: dict.fromkeys(range(4), square(35))})
    return tracker, evaluate(tracker, [clip], prompt=kind, baselines={"copy": Copy()})


def test_baselines_are_told_the_annotation() -> None:
    _, result = run_with_copy(PromptKind.MASK)
    assert result.tracker.j.mean == pytest.approx(1 / 3)
    assert [one.name for one in result.all] == ["tracker", "copy"]
    assert result.baselines[0].jf == 1.0


@pytest.mark.parametrize("kind", [PromptKind.CLICK, PromptKind.BOX])
def test_without_a_mask_prompt_baselines_are_told_what_the_tracker_answered(
    kind: PromptKind,
) -> None:
    tracker, result = run_with_copy(kind)
    assert tracker.prompts[0][1].mask is None
    assert result.baselines[0].j.mean == pytest.approx(1 / 3)


def test_every_step_is_shown() -> None:
    steps: list[Step] = []
    seen = labels({1: square(30)})
    clip = sequence({0: seen, 2: seen, 4: seen}, 5)
    tracker = Scripted({1: {0: square(35)}})
    evaluate(tracker, [clip], baselines={"copy": Copy()}, watch=steps.append)
    assert [(s.who, s.frame.index) for s in steps[:4]] == [
        ("tracker", 0),
        ("copy", 0),
        ("tracker", 1),
        ("copy", 1),
    ]
    np.testing.assert_array_equal(steps[0].labels, labels({1: square(35)}))
    assert [s.annotation is None for s in steps[::2]] == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("annotations", "length", "message"),
    [
        ({}, 3, "frame 0 has no annotation"),
        ({1: labels({})}, 3, "frame 0 has no annotation"),
        ({0: labels({}), 3: labels({})}, 3, "frame 3 is annotated, of 3 frames"),
        ({0: labels({}), 2: labels({255: square(1)})}, 3, "no annotation has an object"),
        ({0: labels({1: square(1)})}, 3, "no frame is left to judge"),
        ({0: labels({1: square(1)}), 1: labels({1: square(1)})}, 3, "no frame is left to judge"),
        ({0: labels({})[:, :50]}, 3, "the annotation of frame 0 is 50x100, the frame 100x100"),
        ({0: labels({}).astype(np.int64)}, 3, "the annotation of frame 0 is not uint8"),
    ],
)
def test_sequences_of_no_use(annotations: dict[int, Labels], length: int, message: str) -> None:
    with pytest.raises(DataError, match=rf"^clip: {message}"):
        evaluate(Scripted({}), [sequence(annotations, length)])


def test_no_sequence_at_all() -> None:
    with pytest.raises(DataError, match="there is no sequence"):
        evaluate(Scripted({}), [])


def test_an_object_first_seen_at_the_end_is_named_and_not_judged() -> None:
    annotations = still(4, {1: square(10)})
    annotations[3] = labels({1: square(10), 5: square(60)})
    tracker = Scripted({1: dict.fromkeys(range(4), square(10))})
    found = evaluate(tracker, [sequence(annotations, 4)]).tracker.sequences[0]
    assert ([one.object for one in found.objects], found.unjudged) == ([1], (5,))
    assert found.jf == 1.0


def test_a_result_survives_json() -> None:
    _, result = run_with_copy(PromptKind.CLICK)
    assert EvaluationResult.model_validate_json(result.model_dump_json()) == result


def test_a_click_is_as_deep_in_the_object_as_can_be() -> None:
    mask = square(10, 20, 31)
    mask[35, 0:99] = True  # a thin line does not draw the click away
    assert deepest_pixel(mask) == (25, 35)
    said = prompt_of(PromptKind.CLICK, 3, mask)
    assert (said.object_id, said.points, said.labels) == (3, ((25.5, 35.5),), (1,))


def test_a_click_stays_in_a_ring() -> None:
    rows, columns = np.indices((SIDE, SIDE))
    distance = np.hypot(rows - 50, columns - 50)
    ring = (distance < 40) & (distance > 25)
    x, y = deepest_pixel(ring)
    assert ring[y, x]
    assert 31 <= distance[y, x] <= 34


def test_the_frame_counts_as_an_edge() -> None:
    assert deepest_pixel(np.ones((9, 21), np.bool_))[1] == 4


def test_a_box_is_around_the_object() -> None:
    assert prompt_of(PromptKind.BOX, 1, square(30, 40, 10)).box == (30, 40, 40, 50)


@pytest.mark.parametrize("kind", PromptKind)
def test_an_empty_mask_prompts_nothing(kind: PromptKind) -> None:
    with pytest.raises(PromptError, match="empty mask"):
        prompt_of(kind, 1, EMPTY)


@pytest.mark.parametrize("seed", range(20))
def test_distances_are_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.pad(rng.random(rng.integers(1, 25, 2)) < rng.random(), 1)
    outside = np.argwhere(~mask)
    expected = [
        [int(((outside - (row, column)) ** 2).sum(axis=1).min()) for column in range(mask.shape[1])]
        for row in range(mask.shape[0])
    ]
    np.testing.assert_array_equal(squared_distance(mask), expected)


def test_a_sequence_may_be_read_only_once() -> None:
    clip = sequence(still(4, {1: square(30)}), 4)
    once = Sequence("once", iter(list(clip.frames)), clip.annotations, clip.frame_names)
    tracker = Scripted({1: dict.fromkeys(range(4), square(30))})
    assert evaluate(tracker, [once], baselines={"copy": Copy()}).tracker.jf == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [(3, "clip: has 3 frames, of 4 named"), (5, "clip: has more frames than the 4 named")],
)
def test_names_and_frames_are_as_many(given: int, message: str) -> None:
    frames = sequence(still(5, {1: square(10)}), 5).frames
    whole = sequence(still(4, {1: square(10)}), 4)
    other = Sequence("clip", list(frames)[:given], whole.annotations, whole.frame_names)
    with pytest.raises(DataError, match=message):
        evaluate(Scripted({}), [other])

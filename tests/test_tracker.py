"""The frame loop, run on a small real model: what it asks of which stage, and what it keeps."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from phoneward.bundle import Bundle
from phoneward.errors import (
    ArtifactChanged,
    BundleError,
    EngineError,
    PromptError,
    TensorMismatch,
    UnknownName,
)
from phoneward.names import Precision
from phoneward.runtime.prompts import Prompt
from phoneward.runtime.tracked_frame import TrackedFrame
from phoneward.runtime.tracker import STAGES, Tracker
from tests.efficienttam_recipe import clip, disc
from tests.efficienttam_stages import Recorded, TorchStage, small_stages

SIDE = 64
FRAMES = clip(40, 96)[:, :80]  # not square, not the model's size
POINT = Prompt(1, points=((35.0, 40.0),), labels=(1,))
OTHER = Prompt(7, points=((70.0, 20.0),), labels=(1,))


@pytest.fixture
def stages() -> dict[str, Recorded]:
    return {name: Recorded(stage) for name, stage in small_stages().items()}


@pytest.fixture
def tracker(stages: dict[str, Recorded]) -> Tracker:
    return Tracker(stages)


def counts(stages: Mapping[str, Recorded]) -> list[int]:
    return [len(stages[name].asked) for name in STAGES]


def asked(stages: Mapping[str, Recorded]) -> dict[str, Any]:
    """The last call of the prompt stage, switches and used labels as numbers."""
    tensors = stages["prompt"].asked[-1]
    labels = tensors["labels"][0]
    said: dict[str, Any] = {
        name: int(tensors[name][0, 0]) for name in ("initial", "has_mask", "has_previous")
    }
    return {**said, "labels": labels[labels != -2].tolist()}


def same(one: TrackedFrame, other: TrackedFrame) -> bool:
    return (
        (one.index, one.object_ids, one.scores, one.ious)
        == (other.index, other.object_ids, other.scores, other.ious)
        and np.array_equal(one.logits, other.logits)
        and np.array_equal(one.masks, other.masks)
    )


def test_an_answer_is_the_logits_at_the_frames_size(tracker: Tracker) -> None:
    tracker.prompt(0, FRAMES[0], POINT)
    frame = tracker.prompt(0, FRAMES[0], OTHER)
    assert frame.object_ids == tracker.object_ids == (1, 7)
    assert frame.masks.shape == (2, 80, 96)
    assert frame.logits.shape == (2, 16, 16)
    upright = F.interpolate(torch.from_numpy(frame.logits)[None], (80, 96), mode="bilinear")[0]
    assert (frame.masks == (upright > 0).numpy()).mean() > 0.999
    assert 0 < frame.masks.mean() < 1
    assert all(0 < iou < 1 for iou in frame.ious)
    assert set(frame.timings) == {"prompt", "memorize"}
    assert all(value > 0 for value in frame.timings.values())


def test_a_first_prompt_reads_no_memory(tracker: Tracker, stages: dict[str, Recorded]) -> None:
    tracker.prompt(3, FRAMES[3], POINT)
    assert counts(stages) == [1, 1, 0, 1]
    assert asked(stages) == {"initial": 1, "has_mask": 0, "has_previous": 0, "labels": [1.0]}
    tensors = stages["prompt"].asked[0]
    x, y = tensors["points"][0, 0]
    assert (x, y) == (pytest.approx(35 * SIDE / 96), pytest.approx(40 * SIDE / 80))
    assert tensors["features"] is stages["encode"].answered[0]["features"]
    remembered = stages["memorize"].asked[0]
    assert remembered["prompted"].item() == 1
    np.testing.assert_array_equal(remembered["masks"], stages["prompt"].answered[0]["masks"])


def test_a_frame_is_encoded_once(tracker: Tracker, stages: dict[str, Recorded]) -> None:
    for prompt in (POINT, OTHER, POINT):
        tracker.prompt(0, FRAMES[0], prompt)
    tracker.track(0, FRAMES[0])
    assert counts(stages) == [1, 3, 0, 3]
    tracker.track(1, FRAMES[1])
    tracker.prompt(1, FRAMES[1], replace(OTHER, object_id=2))
    assert counts(stages) == [2, 4, 2, 6]
    assert [call["prompted"].item() for call in stages["memorize"].asked] == [1, 1, 1, 0, 0, 1]


def test_a_prompted_frame_answers_what_it_did(
    tracker: Tracker, stages: dict[str, Recorded]
) -> None:
    first = tracker.prompt(0, FRAMES[0], POINT)
    assert same(tracker.track(0, FRAMES[0]), first)
    tracker.track(1, FRAMES[1])
    tracker.track(2, FRAMES[2])
    corrected = tracker.prompt(1, FRAMES[1], replace(POINT, labels=(0,)))
    before = counts(stages)
    assert same(tracker.track(1, FRAMES[1]), corrected)
    assert counts(stages) == before


def test_a_second_click_sees_the_first(tracker: Tracker, stages: dict[str, Recorded]) -> None:
    first = tracker.prompt(0, FRAMES[0], POINT)
    tracker.prompt(0, FRAMES[0], Prompt(1, points=((5.0, 70.0),), labels=(0,)))
    assert asked(stages) == {"initial": 1, "has_mask": 0, "has_previous": 1, "labels": [1, 0]}
    np.testing.assert_array_equal(stages["prompt"].asked[-1]["previous"][0], first.logits)
    # also after the frames behind it were tracked: it stays a conditioning frame
    tracker.track(1, FRAMES[1])
    tracker.prompt(0, FRAMES[0], POINT)
    assert asked(stages)["initial"] == 1
    assert asked(stages)["labels"] == [1, 0, 1]


def test_a_box_begins_anew_with_its_corners(tracker: Tracker, stages: dict[str, Recorded]) -> None:
    tracker.prompt(0, FRAMES[0], POINT)
    box = Prompt(1, points=((30.0, 30.0),), labels=(0,), box=(12.0, 10.0, 60.0, 80.0))
    tracker.prompt(0, FRAMES[0], box)
    assert asked(stages) == {"initial": 1, "has_mask": 0, "has_previous": 1, "labels": [2, 3, 0]}
    corners = stages["prompt"].asked[-1]["points"][0, :2]
    np.testing.assert_allclose(corners, [[8, 8], [40, 64]], rtol=1e-6)


def test_a_mask_is_its_own_answer(tracker: Tracker, stages: dict[str, Recorded]) -> None:
    mask = disc(0, 96)[:80]
    frame = tracker.prompt(0, FRAMES[0], Prompt(1, mask=mask))
    assert asked(stages) == {"initial": 1, "has_mask": 1, "has_previous": 0, "labels": [-1]}
    assert (frame.masks[0] == mask).mean() > 0.97
    assert frame.scores == (10.0,)
    tracker.prompt(0, FRAMES[0], POINT)
    assert asked(stages) == {"initial": 1, "has_mask": 0, "has_previous": 1, "labels": [1]}


def test_a_correction_reads_the_memory_of_its_neighbours(
    tracker: Tracker, stages: dict[str, Recorded]
) -> None:
    tracker.prompt(0, FRAMES[0], POINT)
    before = [tracker.track(t, FRAMES[t]) for t in range(1, 6)]
    tracker.prompt(3, FRAMES[3], replace(POINT, labels=(0,)))
    read = stages["propagate"].asked[-1]
    assert read["memory_age"].tolist() == [[0, 1, 2, -1, -1, -1, -1]]
    assert read["pointer_valid"].sum() == 3
    assert asked(stages) == {"initial": 0, "has_mask": 0, "has_previous": 1, "labels": [0]}
    tensors = stages["prompt"].asked[-1]
    assert tensors["features"] is stages["propagate"].answered[-1]["conditioned"]
    np.testing.assert_array_equal(tensors["previous"][0], before[2].logits)
    # what is remembered is the frame as it is, not as memory makes it look
    assert stages["memorize"].asked[-1]["features"] is read["features"]
    assert stages["memorize"].asked[-1]["prompted"].item() == 1
    # it corrects a frame, it does not make it a conditioning one
    assert not same(tracker.track(4, FRAMES[4]), before[3])
    assert stages["propagate"].asked[-1]["memory_age"].tolist() == [[0, 1, 2, 3, -1, -1, -1]]


def test_a_correction_goes_the_way_the_frame_was_tracked(
    tracker: Tracker, stages: dict[str, Recorded]
) -> None:
    tracker.prompt(9, FRAMES[9], POINT)
    for t in (8, 7, 6):
        tracker.track(t, FRAMES[t], reverse=True)
    for prompt in (Prompt(1, mask=disc(7, 96)[:80]), replace(POINT, labels=(0,))):
        tracker.prompt(7, FRAMES[7], prompt)
    read = stages["propagate"].asked[-1]
    assert read["memory_age"].tolist() == [[0, 1, -1, -1, -1, -1, -1]]
    eighth = stages["memorize"].answered[1]["memory"]
    np.testing.assert_allclose(read["memory"][:, :, 16:32], eighth, rtol=2**-8)


def test_a_mask_corrects_without_memory(tracker: Tracker, stages: dict[str, Recorded]) -> None:
    tracker.prompt(0, FRAMES[0], POINT)
    tracker.track(1, FRAMES[1])
    before = counts(stages)
    tracker.prompt(1, FRAMES[1], Prompt(1, mask=disc(1, 96)[:80]))
    assert counts(stages) == [n + more for n, more in zip(before, (0, 1, 0, 1), strict=True)]
    assert asked(stages) == {"initial": 0, "has_mask": 1, "has_previous": 0, "labels": [-1]}
    assert stages["prompt"].asked[-1]["features"] is stages["encode"].answered[-1]["features"]


def test_a_frame_out_of_reach_is_prompted_as_if_new(
    tracker: Tracker, stages: dict[str, Recorded]
) -> None:
    tracker.prompt(0, FRAMES[0], POINT)
    for t in range(1, 20):
        tracker.track(t, FRAMES[t])
    tracker.prompt(2, FRAMES[2], POINT)
    assert asked(stages) == {"initial": 1, "has_mask": 0, "has_previous": 0, "labels": [1]}


def test_objects_do_not_know_of_each_other(stages: dict[str, Recorded]) -> None:
    both, alone = Tracker(stages), Tracker(small_stages())
    both.prompt(0, FRAMES[0], POINT)
    both.prompt(2, FRAMES[2], OTHER)
    alone.prompt(2, FRAMES[2], OTHER)
    for t in (0, 1, 2, 3, 4):
        frame, sole = both.track(t, FRAMES[t]), alone.track(t, FRAMES[t])
        assert frame.object_ids == (1, 7)
        np.testing.assert_array_equal(frame.logits[1], sole.logits[0])
        assert frame.scores[1] == sole.scores[0]


def test_only_who_has_an_answer_is_in_a_prompts_frame(tracker: Tracker) -> None:
    tracker.prompt(0, FRAMES[0], POINT)
    assert tracker.prompt(2, FRAMES[2], OTHER).object_ids == (7,)


def test_removing_and_resetting(tracker: Tracker, stages: dict[str, Recorded]) -> None:
    tracker.prompt(0, FRAMES[0], POINT)
    tracker.prompt(0, FRAMES[0], OTHER)
    with pytest.raises(PromptError, match="no object 3; there are: 1, 7"):
        tracker.remove(3)
    tracker.remove(1)
    assert tracker.object_ids == (7,)
    assert tracker.track(1, FRAMES[1]).object_ids == (7,)
    tracker.reset()
    assert tracker.object_ids == ()
    # frame 1 is now another video's
    tracker.prompt(1, FRAMES[9], POINT)
    assert len(stages["encode"].asked) == 3


def test_without_objects_nothing_runs(tracker: Tracker, stages: dict[str, Recorded]) -> None:
    frame = tracker.track(0, FRAMES[0])
    assert (frame.object_ids, frame.scores, frame.masks.shape) == ((), (), (0, 80, 96))
    assert frame.logits.shape == (0, 16, 16)
    assert counts(stages) == [0, 0, 0, 0]


def saved(tracker: Tracker) -> dict[str, NDArray[Any]]:
    """A state after a journey through a file."""
    file = io.BytesIO()
    np.savez(file, **tracker.state())
    file.seek(0)
    with np.load(file, allow_pickle=False) as read:
        return dict(read)


def test_a_restored_tracker_goes_on_bit_for_bit() -> None:
    one, other = Tracker(small_stages()), Tracker(small_stages())
    one.prompt(0, FRAMES[0], POINT)
    one.prompt(0, FRAMES[0], Prompt(4, mask=disc(0, 96)[:80]))
    for t in range(1, 10):
        one.track(t, FRAMES[t])
    one.prompt(9, FRAMES[9], replace(POINT, labels=(0,)))
    one.prompt(9, FRAMES[9], OTHER)
    other.prompt(30, FRAMES[30], replace(POINT, object_id=99))
    other.restore(saved(one))
    assert other.object_ids == (1, 4, 7)
    for tracker in (one, other):
        tracker.track(10, FRAMES[10])
    for t in (11, 12, 13):
        assert same(one.track(t, FRAMES[t]), other.track(t, FRAMES[t]))
    for index, prompt in ((9, POINT), (0, POINT), (12, OTHER), (20, POINT)):
        frames = [tracker.prompt(index, FRAMES[index], prompt) for tracker in (one, other)]
        assert same(*frames)
    for t in (8, 7):
        assert same(*(each.track(t, FRAMES[t], reverse=True) for each in (one, other)))
    ones, others = one.state(), other.state()
    assert ones.keys() == others.keys()
    assert all(np.array_equal(ones[key], others[key]) for key in ones)


def test_a_state_is_a_copy(tracker: Tracker) -> None:
    tracker.prompt(0, FRAMES[0], POINT)
    state = tracker.state()
    follow = Tracker(small_stages())
    follow.restore(tracker.state())
    for array in state.values():
        array[...] = 0
    assert same(tracker.track(1, FRAMES[1]), follow.track(1, FRAMES[1]))


def test_an_empty_state_is_one(tracker: Tracker) -> None:
    tracker.prompt(0, FRAMES[0], POINT)
    tracker.restore(saved(Tracker(small_stages())))
    assert tracker.object_ids == ()


@pytest.mark.parametrize("lost", ["object_ids", "object1/logits", "object1/click_counts"])
def test_a_state_with_a_hole_is_refused(tracker: Tracker, lost: str) -> None:
    tracker.prompt(0, FRAMES[0], POINT)
    state = tracker.state()
    del state[lost]
    with pytest.raises(TensorMismatch, match=f"not a tracker's state: '{lost}' is missing"):
        tracker.restore(state)
    assert tracker.object_ids == (1,)


def test_another_models_state_is_refused(tracker: Tracker) -> None:
    larger = Tracker(small_stages(side=80))
    larger.prompt(0, FRAMES[0], POINT)
    with pytest.raises(TensorMismatch, match="another model's state: 'object1/memory' has shape"):
        tracker.restore(larger.state())


@pytest.mark.parametrize(
    "name", ["frames", "flags", "answers", "pointer", "clicks", "click_counts"]
)
def test_a_state_of_parts_that_do_not_fit_is_refused(tracker: Tracker, name: str) -> None:
    tracker.prompt(0, FRAMES[0], POINT)
    before = tracker.prompt(0, FRAMES[0], POINT)
    state = tracker.state()
    state[f"object1/{name}"] = state[f"object1/{name}"][..., :-1]
    with pytest.raises(TensorMismatch, match="another model's state: 'object1/"):
        tracker.restore(state)
    assert same(tracker.track(0, FRAMES[0]), before)


def test_memory_does_not_grow_with_the_stream(tracker: Tracker) -> None:
    tracker.prompt(0, FRAMES[0], POINT)
    sizes = []
    for t in range(1, 120):
        tracker.track(t, FRAMES[t % 40])
        sizes.append(sum(array.nbytes for array in tracker.state().values()))
    assert max(sizes) == sizes[20] == sizes[-1]


@pytest.mark.parametrize("slots", [2, 4, 16])
def test_any_number_of_slots(slots: int) -> None:
    tracker = Tracker(small_stages(slots=slots))
    tracker.prompt(0, FRAMES[0], POINT)
    for t in range(1, 9):
        assert np.isfinite(tracker.track(t, FRAMES[t]).logits).all()


def test_a_model_without_pointers_is_given_none() -> None:
    stages = {name: Recorded(stage) for name, stage in small_stages(pointers=False).items()}
    tracker = Tracker(stages)
    tracker.prompt(0, FRAMES[0], POINT)
    tracker.track(1, FRAMES[1])
    assert set(stages["propagate"].asked[0]) == {"features", "memory", "memory_age"}


def test_a_prompt_outside_the_frame_changes_nothing(
    tracker: Tracker, stages: dict[str, Recorded]
) -> None:
    with pytest.raises(PromptError, match="outside the frame of 96x80"):
        tracker.prompt(0, FRAMES[0], Prompt(1, points=((10.0, 80.0),), labels=(1,)))
    with pytest.raises(PromptError, match="mask of 96x96"):
        tracker.prompt(0, FRAMES[0], Prompt(1, mask=disc(0, 96)))
    assert tracker.object_ids == ()
    assert counts(stages) == [0, 0, 0, 0]


def test_points_that_add_up_to_too_many(tracker: Tracker) -> None:
    ten = Prompt(1, points=((9.0, 9.0),) * 10, labels=(1,) * 10)
    first = tracker.prompt(0, FRAMES[0], ten)
    with pytest.raises(PromptError, match="object 1 has 20 points on frame 0 by now"):
        tracker.prompt(0, FRAMES[0], ten)
    assert same(tracker.track(0, FRAMES[0]), first)


def test_what_is_no_frame_is_refused(tracker: Tracker) -> None:
    for call in (
        lambda: tracker.track(0, FRAMES[0, 0]),
        lambda: tracker.prompt(0, FRAMES[0].astype(np.float32), POINT),  # type: ignore[arg-type]
    ):
        with pytest.raises(TensorMismatch, match="a frame is uint8"):
            call()


def test_numbers_that_are_none_stop_it(stages: dict[str, Recorded]) -> None:
    class Broken(Recorded):
        def __call__(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            answer = dict(super().__call__(tensors))
            return {**answer, "memory": np.full_like(answer["memory"], np.inf)}

    broken = Broken(small_stages()["memorize"])
    tracker = Tracker({**stages, "memorize": broken})
    with pytest.raises(EngineError, match="stage 'memorize': not all of 'memory' is finite"):
        tracker.prompt(0, FRAMES[0], POINT)
    assert tracker.object_ids == ()


def test_a_missing_stage_is_named() -> None:
    stages: dict[str, TorchStage] = dict(small_stages())
    del stages["propagate"]
    with pytest.raises(BundleError, match="the stage 'propagate' is missing; there are: encode"):
        Tracker(stages)


# a real bundle


def test_a_bundle_tracks(tam_bundle: Bundle) -> None:
    frames = clip(3, 128)[:, :96]
    with Tracker.open(tam_bundle, threads=2) as tracker:
        assert tracker.engine == "onnxruntime"
        tracker.prompt(0, frames[0], POINT)
        for t in (1, 2):
            frame = tracker.track(t, frames[t])
            assert frame.masks.shape == (1, 96, 128)
            assert set(frame.timings) == {"encode", "propagate", "memorize"}
    with pytest.raises(EngineError, match="closed"):
        tracker.track(3, frames[0])


def test_a_bundle_says_what_it_has_not(tam_bundle: Bundle, bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="has no stage 'encode'; it has: classify"):
        Tracker.open(bundle)
    with pytest.raises(BundleError, match="no such artifact; it has: onnx-fp32$"):
        Tracker.open(tam_bundle, engine="litert")
    with pytest.raises(BundleError, match="no such artifact; it has: onnx-fp32$"):
        Tracker.open(tam_bundle, precision=Precision.FP16)
    with pytest.raises(UnknownName, match="tensorrt"):
        Tracker.open(tam_bundle, engine="tensorrt")
    artifacts = tuple(a for a in tam_bundle.manifest.artifacts if a.stage != "memorize")
    less = tam_bundle.manifest.model_copy(update={"artifacts": artifacts})
    with pytest.raises(BundleError, match="onnx-fp32 lacks the stage 'memorize'"):
        Tracker.open(Bundle(tam_bundle.path, less))


def test_a_changed_artifact_is_not_opened(tam_bundle: Bundle, tmp_path: Path) -> None:
    copy = Bundle.open(shutil.copytree(tam_bundle.path, tmp_path / "copy"))
    (last,) = [a for a in copy.manifest.artifacts if a.stage == "memorize"]
    content = bytearray(copy.file(last).read_bytes())
    content[len(content) // 2] ^= 1
    copy.file(last).write_bytes(content)
    with pytest.raises(ArtifactChanged, match="memorize"):
        Tracker.open(copy)
    copy.file(last).unlink()
    with pytest.raises(BundleError, match="is missing from the bundle"):
        Tracker.open(copy)

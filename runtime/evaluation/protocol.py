"""Semi-supervised evaluation as DAVIS defines it: told once what an object is, then on its own.

An object is prompted on the first frame whose annotation has it: frame 0 in DAVIS, any in
YouTube-VOS. It is judged on every annotated frame after that but the last annotated one of the
sequence, which the official evaluation leaves out too. A tracker never sees a later frame, nor an
annotation but through a prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from phoneward.errors import DataError
from phoneward.runtime.evaluation.metrics import contour_accuracy, region_similarity
from phoneward.runtime.evaluation.prompting import PromptKind, prompt_of
from phoneward.runtime.evaluation.result import (
    EvaluationResult,
    ObjectResult,
    SequenceResult,
    TrackerResult,
)
from phoneward.runtime.evaluation.sequence import Sequence, objects_in
from phoneward.runtime.follow import Tracks
from phoneward.runtime.prompts import Prompt
from phoneward.runtime.resample import resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.runtime.frames import Frame
    from phoneward.runtime.tracked_frame import TrackedFrame

TRACKER = "tracker"


class Evaluable(Tracks, Protocol):
    """What can be evaluated: a `Tracker`, or a baseline."""

    def reset(self) -> None:
        """Forget everything, to begin another sequence."""
        ...


@dataclass(frozen=True, eq=False)
class Step:
    """One frame of one sequence as `who` ("tracker", or a baseline) did it.

    `labels` uint8 (H, W) has the objects as annotations do, `annotation` is None on frames
    without one.
    """

    who: str
    sequence: Sequence
    frame: Frame
    labels: NDArray[np.uint8]
    annotation: NDArray[np.uint8] | None


def evaluate(
    tracker: Evaluable,
    sequences: Iterable[Sequence],
    *,
    prompt: PromptKind = PromptKind.MASK,
    baselines: Mapping[str, Evaluable] | None = None,
    watch: Callable[[Step], None] = lambda step: None,
) -> EvaluationResult:
    """Let a tracker, and baselines beside it, follow the objects of all sequences, and judge them.

    Baselines are told masks: the annotated ones or, where the tracker is told less, those that it
    answered. `watch` is called for every frame and everyone who tracks it.

    Raises:
        DataError: there is no sequence, or one has no object, or no frame to judge one on, or
            annotations or names that do not fit its frames.
        ImageError, VideoError: a file cannot be read.
        EngineError: as the tracker.
    """
    others = baselines or {}
    found: dict[str, list[SequenceResult]] = {name: [] for name in (TRACKER, *others)}
    for sequence in sequences:
        course = _Course(sequence, prompt, {TRACKER: tracker, **others}, watch)
        for name, result in course.play().items():
            found[name].append(result)
    results = [TrackerResult.of(name, each) for name, each in found.items()]
    return EvaluationResult(prompt=prompt, tracker=results[0], baselines=tuple(results[1:]))


def labels_of(tracked: TrackedFrame) -> NDArray[np.uint8]:
    """Return a frame's masks as one image (H, W) of object ids, 1 to 254; 0 is no object.

    A pixel of several masks goes to the object with the highest logit there, as in SAM 2's
    evaluation; of equals to the first.
    """
    height, width = tracked.masks.shape[1:]
    labels = np.zeros((height, width), np.uint8)
    for object_id, mask in zip(reversed(tracked.object_ids), tracked.masks[::-1], strict=True):
        labels[mask] = object_id
    contested = np.count_nonzero(tracked.masks, axis=0) > 1
    if contested.any():
        logits = np.stack([resize(each, (height, width))[contested] for each in tracked.logits])
        claimed = np.where(tracked.masks[:, contested], logits, -np.inf)
        labels[contested] = np.array(tracked.object_ids, np.uint8)[claimed.argmax(axis=0)]
    return labels


@dataclass(eq=False)
class _Run:
    """One tracker on one sequence."""

    tracker: Evaluable
    rows: dict[int, list[tuple[int, float, float]]] = field(default_factory=dict)
    frame_ms: list[float] = field(default_factory=list)


class _Course:
    """The course of one sequence: every frame is read once, and given to everyone."""

    def __init__(
        self,
        sequence: Sequence,
        kind: PromptKind,
        trackers: Mapping[str, Evaluable],
        watch: Callable[[Step], None],
    ) -> None:
        self._sequence, self._kind, self._watch = sequence, kind, watch
        self._runs = {name: _Run(tracker) for name, tracker in trackers.items()}
        self._first: dict[int, int] = {}
        self._last = max(sequence.annotations)
        self._size = (0, 0)

    def play(self) -> dict[str, SequenceResult]:
        for run in self._runs.values():
            run.tracker.reset()
        count, expected = 0, len(self._sequence.frame_names)
        for frame in self._sequence.frames:
            if count == expected:
                raise DataError(self._sequence.name, f"has more frames than the {count} named")
            self._size = frame.pixels.shape[0], frame.pixels.shape[1]
            self._one(frame)
            count += 1
        if count < expected:
            raise DataError(self._sequence.name, f"has {count} frames, of {expected} named")
        return {name: self._result(run) for name, run in self._runs.items()}

    def _one(self, frame: Frame) -> None:
        annotation = self._sequence.annotation(frame)
        present = objects_in(annotation) if annotation is not None else ()
        new = [each for each in present if each not in self._first]
        self._first.update((each, frame.index) for each in new)
        prompts = [prompt_of(self._kind, each, np.asarray(annotation) == each) for each in new]
        for name, run in self._runs.items():
            tracked = _follow(run, frame, prompts)
            if tracked is None:
                continue
            labels = labels_of(tracked)
            if annotation is not None and frame.index != self._last:
                self._judge(run, frame.index, labels, annotation)
            self._watch(Step(name, self._sequence, frame, labels, annotation))
            if name == TRACKER and self._kind is not PromptKind.MASK:
                prompts = [Prompt(each, mask=labels == each) for each in new]

    def _judge(
        self, run: _Run, index: int, labels: NDArray[np.uint8], annotation: NDArray[np.uint8]
    ) -> None:
        for each in [one for one, first in self._first.items() if first < index]:
            found, wanted = labels == each, annotation == each
            row = index, region_similarity(found, wanted), contour_accuracy(found, wanted)
            run.rows.setdefault(each, []).append(row)

    def _result(self, run: _Run) -> SequenceResult:
        if not self._first:
            raise DataError(self._sequence.name, "no annotation has an object in it")
        if not run.rows:
            raise DataError(
                self._sequence.name,
                "no frame is left to judge: the one on which an object is prompted and the last "
                "annotated one do not count",
            )
        objects = [ObjectResult.of(each, self._first[each], run.rows[each]) for each in run.rows]
        unjudged = [each for each in self._first if each not in run.rows]
        name = self._sequence.name
        return SequenceResult.of(name, self._size, objects, unjudged, run.frame_ms)


def _follow(run: _Run, frame: Frame, prompts: Iterable[Prompt]) -> TrackedFrame | None:
    """Track what is known, then prompt what is new, and note how long both took."""
    began = time.perf_counter()
    tracked = None
    if run.tracker.object_ids:
        tracked = run.tracker.track(frame.index, frame.pixels)
    for prompt in prompts:
        tracked = run.tracker.prompt(frame.index, frame.pixels, prompt)
    if tracked is not None:
        run.frame_ms.append((time.perf_counter() - began) * 1000)
    return tracked

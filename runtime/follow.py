"""Tracking by a list of prompts that is known before the video begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from phoneward.errors import PromptError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from phoneward.runtime.frames import Frame
    from phoneward.runtime.prompts import Prompt
    from phoneward.runtime.tracked_frame import TrackedFrame


class Tracks(Protocol):
    """What is asked of a `Tracker` here."""

    @property
    def object_ids(self) -> tuple[int, ...]: ...

    def prompt(self, index: int, pixels: NDArray[np.uint8], prompt: Prompt) -> TrackedFrame:
        """See `Tracker.prompt`."""
        ...

    def track(self, index: int, pixels: NDArray[np.uint8]) -> TrackedFrame:
        """See `Tracker.track`."""
        ...


@dataclass(frozen=True, eq=False)
class PromptAt:
    """A prompt, and the index of the frame it is meant for."""

    frame: int
    prompt: Prompt


class Follower:
    """Gives a tracker frames in order, each with its prompts.

    A prompt for an object that is followed already corrects what was found on its frame. With
    `late`, for streams that drop frames, a prompt is given on the first frame that comes at or
    after its own.
    """

    def __init__(self, tracker: Tracks, prompts: Sequence[PromptAt], *, late: bool = False) -> None:
        self._tracker, self._late = tracker, late
        self._waiting = sorted(prompts, key=lambda each: each.frame)
        self._last: int | None = None

    def __call__(self, frame: Frame) -> TrackedFrame | None:
        """Track one frame; None as long as no object has been prompted.

        `timings` are of all that the frame took.

        Raises:
            PromptError: on the first frame, if any prompt does not fit it; all frames of a video
                have one size.
            EngineError: as the tracker.
        """
        if self._last is None:
            self._check(frame)
        self._last = frame.index
        answers = []
        if self._tracker.object_ids:
            answers.append(self._tracker.track(frame.index, frame.pixels))
        for each in self._due(frame.index):
            answers.append(self._tracker.prompt(frame.index, frame.pixels, each.prompt))
        if not answers:
            return None
        timings: dict[str, float] = {}
        for answer in answers:
            for stage, taken in answer.timings.items():
                timings[stage] = timings.get(stage, 0.0) + taken
        return replace(answers[-1], timings=timings)

    def end(self) -> None:
        """Raise `PromptError` if the video ended before a prompt's frame."""
        if self._waiting:
            first = self._waiting[0]
            raise PromptError(no_such_frame(first, 0 if self._last is None else self._last + 1))

    def _check(self, frame: Frame) -> None:
        height, width = frame.pixels.shape[:2]
        for each in self._waiting:
            try:
                each.prompt.check_inside(height, width)
            except PromptError as error:
                raise PromptError(f"frame {each.frame}: {error}") from error

    def _due(self, index: int) -> list[PromptAt]:
        due = [each for each in self._waiting if self._is_due(each.frame, index)]
        self._waiting = [each for each in self._waiting if not self._is_due(each.frame, index)]
        return due

    def _is_due(self, wanted: int, index: int) -> bool:
        return wanted <= index if self._late else wanted == index


def no_such_frame(prompt: PromptAt, count: int) -> str:
    """Say that a prompt's frame is not among the `count` that exist."""
    there = f"its frames are 0 to {count - 1}" if count else "it has no frame"
    return f"a prompt is for frame {prompt.frame}, which the video does not have; {there}"

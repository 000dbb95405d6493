"""Objects through a video: the frame loop around EfficientTAM's four stages.

    prompt(t)   encode, once a frame
                a frame new to the object:  prompt(features)               a conditioning frame
                a frame it was tracked on:  propagate, prompt(conditioned) a correction
                memorize
    track(t)    encode, once a frame
                each object:                propagate, memorize

All state is in the memory banks, one an object. The rules are those of the official
`EfficientTAMVideoPredictor`, but for three in which it loses what a user said: a frame that was
prompted keeps its answer when it is tracked again, a conditioning frame can be refined at any
time, and points add up until a box or a mask takes their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.closing import Closing
from phoneward.errors import PromptError
from phoneward.runtime.artifacts import Wanted, choose_set, open_artifact
from phoneward.runtime.memory_bank import BankShape, Entry, MemoryBank, TrackerConfig, narrow
from phoneward.runtime.prompt_tensors import clicks_of, prompt_tensors, switch
from phoneward.runtime.resample import frame_size, frame_tensor, mask_tensor
from phoneward.runtime.stages import Runner, Stages
from phoneward.runtime.tracked_frame import TrackedFrame, tracked_frame
from phoneward.runtime.tracker_state import from_arrays, to_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.bundle import Bundle
    from phoneward.names import Precision
    from phoneward.runtime.prompts import Prompt
    from phoneward.runtime.stages import Arrays

STAGES = ("encode", "prompt", "propagate", "memorize")


class Tracker(Closing):
    """Follows any number of objects. Not for use by several threads at once.

    An index names one frame, until `reset`. Frames come as (H, W, 3) uint8 RGB, upright.
    """

    def __init__(self, stages: Mapping[str, Runner], config: TrackerConfig | None = None) -> None:
        """Take the four stages, all of one model; raises `BundleError` if one is missing."""
        self.config = config or TrackerConfig()
        self.engine: str | None = None
        self._stages, self._resources = Stages(stages, STAGES), ExitStack()
        propagate = self._stages["propagate"]
        self._shape = BankShape.of(propagate.inputs, propagate.outputs)
        shapes = {spec.name: spec.shape for spec in self._stages["prompt"].inputs}
        self._points, self._side = shapes["points"][1], shapes["mask"][-1]
        self._banks: dict[int, MemoryBank] = {}
        self._encoded: tuple[int, NDArray[Any]] | None = None

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        *,
        engine: str | None = None,
        format_name: str | None = None,
        precision: Precision | None = None,
        threads: int = 1,
    ) -> Tracker:
        """Open the first artifacts of one format and precision that can run here.

        Raises:
            UnknownName: no such engine.
            BundleError: the bundle lacks a stage or a file, or has nothing that fits.
            ArtifactChanged: an artifact is not what was exported.
            EngineError, MissingExtra: what fits cannot be run here.
        """
        wanted = Wanted(engine, format_name, precision)
        artifacts, chosen = choose_set(bundle, STAGES, wanted)
        with ExitStack() as opened:
            sessions = {
                name: opened.enter_context(open_artifact(bundle, artifact, chosen, threads))
                for name, artifact in artifacts.items()
            }
            tracker = cls(sessions)
            tracker.engine = chosen
            tracker._resources = opened.pop_all()
        return tracker

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects, in the order in which they were first prompted."""
        return tuple(self._banks)

    def prompt(self, index: int, pixels: NDArray[np.uint8], prompt: Prompt) -> TrackedFrame:
        """Say what an object is, or is not, on a frame; a new object id makes a new object.

        Returns all objects that have an answer on this frame.

        Raises:
            PromptError: the prompt is not inside the frame, or its object has too many points.
            TensorMismatch: `pixels` are no frame.
            EngineError: a stage failed, or its output is not finite.
        """
        self._stages.begin()
        size = frame_size(pixels)
        prompt.check_inside(*size)
        bank = self._banks.get(prompt.object_id, MemoryBank(self._shape, self.config))
        before = bank.get(index)
        clicks = self._clicks(index, prompt, size, before)
        initial = before is None or bank.is_conditioning(index)
        mask = None if prompt.mask is None else mask_tensor(prompt.mask, self._side)
        features = seen = self._encode(index, pixels)
        reverse = before is not None and before.reverse
        previous = before.logits if before is not None and mask is None else None
        if not initial and mask is None:
            seen = self._propagate(index, features, bank, reverse)["conditioned"]
        said = prompt_tensors(self._stages["prompt"].inputs, clicks, mask, previous)
        answer = self._stages.run("prompt", {"features": seen, "initial": switch(initial), **said})
        entry = self._memorize(features, answer, reverse, clicks)
        remember = bank.condition if initial else bank.track
        remember(index, entry)
        self._banks[prompt.object_id] = bank
        return self._answer(index, size)

    def track(
        self, index: int, pixels: NDArray[np.uint8], *, reverse: bool = False
    ) -> TrackedFrame:
        """Follow all objects to a frame, from the frames before it or, in reverse, after it.

        An object that was prompted on this frame answers what it did then. Without objects
        nothing runs.

        Raises:
            TensorMismatch: `pixels` are no frame.
            EngineError: a stage failed, or its output is not finite.
        """
        self._stages.begin()
        size = frame_size(pixels)
        for bank in self._banks.values():
            known = bank.get(index)
            if known is None or known.clicks is None:
                features = self._encode(index, pixels)
                answer = self._propagate(index, features, bank, reverse)
                bank.track(index, self._memorize(features, answer, reverse, None))
        return self._answer(index, size)

    def remove(self, object_id: int) -> None:
        """Forget an object; raises `PromptError` if there is none such."""
        if object_id not in self._banks:
            known = ", ".join(map(str, self._banks)) or "none"
            raise PromptError(f"no object {object_id}; there are: {known}")
        del self._banks[object_id]

    def reset(self) -> None:
        """Forget everything, to begin another video."""
        self._banks, self._encoded = {}, None

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that is remembered as arrays that `np.savez` takes."""
        return to_arrays(self._banks)

    def restore(self, state: Arrays) -> None:
        """Take up a state, in place of one's own; the same frames then give the same answers.

        Raises:
            TensorMismatch: it is no state, or another model's; the tracker is as it was.
        """
        self._banks = from_arrays(state, self._shape, self.config)
        self._encoded = None

    def close(self) -> None:
        """Close the sessions that `open` opened."""
        self._resources.close()

    def _encode(self, index: int, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        if self._encoded is None or self._encoded[0] != index:
            image = self._stages["encode"].inputs[0]
            tensors = {image.name: frame_tensor(pixels, image)}
            self._encoded = index, self._stages.run("encode", tensors)["features"]
        return self._encoded[1]

    def _clicks(
        self, index: int, prompt: Prompt, size: tuple[int, int], before: Entry | None
    ) -> NDArray[np.float32]:
        """All points of an object on a frame, those of earlier prompts first."""
        clicks = clicks_of(prompt, size, self._side)
        adds_up = prompt.box is None and prompt.mask is None
        if adds_up and before is not None and before.clicks is not None:
            clicks = np.concatenate((before.clicks, clicks))
        if len(clicks) > self._points:
            raise PromptError(
                f"object {prompt.object_id} has {len(clicks)} points on frame {index} by now "
                f"(a box counts as two); one frame takes {self._points}"
            )
        return clicks

    def _propagate(
        self, index: int, features: NDArray[Any], bank: MemoryBank, reverse: bool
    ) -> Arrays:
        read = bank.inputs(index, reverse=reverse)
        return self._stages.run("propagate", {"features": features, **read})

    def _memorize(
        self,
        features: NDArray[Any],
        answer: Arrays,
        reverse: bool,
        clicks: NDArray[np.float32] | None,
    ) -> Entry:
        """Make the entry of a frame; `clicks` is None where it was tracked, not prompted."""
        tensors = {
            "features": features,
            "masks": answer["masks"],
            "prompted": switch(clicks is not None),
        }
        memory = self._stages.run("memorize", tensors)["memory"]
        return Entry(
            memory=narrow(memory[0]),
            pointer=answer["pointer"],
            logits=answer["masks"],
            score=float(answer["score"][0, 0]),
            iou=float(answer["iou"][0, 0]),
            reverse=reverse,
            clicks=clicks,
        )

    def _answer(self, index: int, size: tuple[int, int]) -> TrackedFrame:
        found = {each: entry for each, bank in self._banks.items() if (entry := bank.get(index))}
        return tracked_frame(index, size, self._shape.mask_side, found, self._stages.timings)

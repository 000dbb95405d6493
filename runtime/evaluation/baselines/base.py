"""The part of every baseline that is no policy: it answers as a `Tracker` does, told masks."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from phoneward.errors import MissingExtra, PromptError
from phoneward.runtime.tracked_frame import TrackedFrame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.runtime.prompts import Prompt

# longer side of the frames that baselines see, in pixels
_SEEN = 256


class Baseline(ABC):
    """Keeps the mask that each object was prompted with, and the frame before, small and grey."""

    def __init__(self) -> None:
        self._masks: dict[int, NDArray[np.bool_]] = {}
        self._seen: tuple[int, NDArray[np.float32]] | None = None

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects, in the order in which they were prompted."""
        return tuple(self._masks)

    def prompt(self, index: int, pixels: NDArray[np.uint8], prompt: Prompt) -> TrackedFrame:
        """Take an object's mask; raises `PromptError` if the prompt has none."""
        if prompt.mask is None:
            raise PromptError(f"object {prompt.object_id}: a baseline takes a mask, nothing else")
        prompt.check_inside(*pixels.shape[:2])
        seen = self._go_to(index, pixels)
        self._masks[prompt.object_id] = prompt.mask
        self._begin(prompt.object_id, prompt.mask, seen)
        return self._answer(index)

    def track(self, index: int, pixels: NDArray[np.uint8]) -> TrackedFrame:
        """Follow all objects to a frame, which comes after the one before."""
        self._go_to(index, pixels)
        return self._answer(index)

    def reset(self) -> None:
        """Forget everything, to begin another sequence."""
        self._masks, self._seen = {}, None

    def _go_to(self, index: int, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self._seen is not None and self._seen[0] == index:
            return self._seen[1]
        now = _small(pixels)
        if self._seen is not None and self._masks:
            self._move(self._seen[1], now)
        self._seen = index, now
        return now

    def _answer(self, index: int) -> TrackedFrame:
        masks = np.stack([self._mask(each) for each in self._masks])
        count = len(masks)
        return TrackedFrame(
            index=index,
            object_ids=self.object_ids,
            masks=masks,
            logits=np.ones((count, 1, 1), np.float32),
            scores=tuple(1.0 if mask.any() else -1.0 for mask in masks),
            ious=(1.0,) * count,
            timings={},
        )

    @abstractmethod
    def _begin(self, object_id: int, mask: NDArray[np.bool_], seen: NDArray[np.float32]) -> None:
        """Take up an object of mask (H, W) on a small grey frame (h, w) of 0 to 1."""

    @abstractmethod
    def _move(self, before: NDArray[np.float32], now: NDArray[np.float32]) -> None:
        """Carry all objects from one small grey frame (h, w) to the next."""

    @abstractmethod
    def _mask(self, object_id: int) -> NDArray[np.bool_]:
        """Return an object's present mask (H, W)."""


def import_skimage(module: str) -> Any:
    """Import a module of scikit-image; raises `MissingExtra` where it is not installed."""
    try:
        return importlib.import_module(f"skimage.{module}")
    except ModuleNotFoundError as error:
        raise MissingExtra("scikit-image, which this baseline needs,", "evaluate") from error


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a frame (H, W, 3) in grey, 0 to 1, its longer side at most `_SEEN`."""
    image = Image.fromarray(pixels).convert("L")
    image.thumbnail((_SEEN, _SEEN), Image.Resampling.BILINEAR, reducing_gap=None)
    return np.asarray(image, np.float32) / np.float32(255)

"""Small annotated sequences, and a tracker that answers what it is told to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoneward.runtime.evaluation import Sequence
from phoneward.runtime.evaluation.annotation import write_annotation
from phoneward.runtime.frames import Frame
from phoneward.runtime.prompts import Prompt
from phoneward.runtime.tracked_frame import TrackedFrame

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]
SIDE = 100


def square(x: int, y: int = 40, side: int = 10) -> Mask:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def labels(objects: Mapping[int, Mask]) -> Labels:
    image = np.zeros((SIDE, SIDE), np.uint8)
    for number, mask in objects.items():
        image[mask] = number
    return image


def sequence(annotations: Mapping[int, Labels], length: int, name: str = "clip") -> Sequence:
    frames = [Frame(i, i / 30, np.full((SIDE, SIDE, 3), i, np.uint8)) for i in range(length)]
    return Sequence(name, frames, annotations, tuple(f"{i:05d}" for i in range(length)))


class Scripted:
    """Answers for each object what `script` has for the frame, or nothing where that is silent."""

    def __init__(self, script: Mapping[int, Mapping[int, Mask]]) -> None:
        self.script = script
        self.prompts: list[tuple[int, Prompt]] = []
        self.tracked: list[int] = []
        self.resets = 0
        self._ids: list[int] = []

    @property
    def object_ids(self) -> tuple[int, ...]:
        return tuple(self._ids)

    def prompt(self, index: int, pixels: NDArray[np.uint8], prompt: Prompt) -> TrackedFrame:
        prompt.check_inside(*pixels.shape[:2])
        self.prompts.append((index, prompt))
        self._ids.append(prompt.object_id)
        return self._answer(index)

    def track(self, index: int, pixels: NDArray[np.uint8]) -> TrackedFrame:
        assert (pixels == index).all()
        self.tracked.append(index)
        return self._answer(index)

    def reset(self) -> None:
        self.resets += 1
        self._ids = []

    def _answer(self, index: int) -> TrackedFrame:
        nothing = np.zeros((SIDE, SIDE), np.bool_)
        masks = [self.script.get(each, {}).get(index, nothing) for each in self._ids]
        logits = [np.full((2, 2), each, np.float32) for each in self._ids]
        return TrackedFrame(
            index=index,
            object_ids=self.object_ids,
            masks=np.stack(masks),
            logits=np.stack(logits),
            scores=(1.0,) * len(masks),
            ious=(1.0,) * len(masks),
            timings={},
        )


def write_davis(folder: Path, clip: Sequence, *, resolution: str = "480p") -> None:
    """Write a sequence in the layout of DAVIS."""
    frames = folder / "JPEGImages" / resolution / clip.name
    annotations = folder / "Annotations" / resolution / clip.name
    frames.mkdir(parents=True)
    annotations.mkdir(parents=True)
    for frame in clip.frames:
        Image.fromarray(frame.pixels).save(frames / f"{clip.frame_names[frame.index]}.jpg")
    for index, each in clip.annotations.items():
        write_annotation(annotations / f"{clip.frame_names[index]}.png", each)

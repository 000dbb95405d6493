"""What a tracker is evaluated on: frames, and on some of them what is where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phoneward.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.runtime.frames import Frame

VOID = 255


@dataclass(frozen=True, eq=False)
class Sequence:
    """An annotated video.

    Attributes:
        name: unique among the sequences of an evaluation.
        frames: in order, their indices from 0; may be read only once.
        annotations: by the index of a frame uint8 of shape (H, W): 0 the background, 1 to 254 the
            objects, 255 void, which is no object. They may be read when they are asked for.
        frame_names: a name for each frame, which its files have.
    """

    name: str
    frames: Iterable[Frame]
    annotations: Mapping[int, NDArray[np.uint8]]
    frame_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if 0 not in self.annotations:
            raise DataError(self.name, "frame 0 has no annotation; a tracker starts from it")
        count = len(self.frame_names)
        if strange := set(self.annotations) - set(range(count)):
            raise DataError(
                self.name, f"frame {max(strange)} is annotated, of {count} frames from 0 on"
            )

    def annotation(self, frame: Frame) -> NDArray[np.uint8] | None:
        """Return a frame's annotation, if it has one.

        Raises:
            DataError: it is not of the frame's size.
            ImageError: its file cannot be read.
        """
        if frame.index not in self.annotations:
            return None
        annotation = self.annotations[frame.index]
        if annotation.dtype != np.uint8 or annotation.ndim != 2:
            raise DataError(self.name, f"the annotation of frame {frame.index} is not uint8 (H, W)")
        if annotation.shape != frame.pixels.shape[:2]:
            (height, width), (rows, columns) = frame.pixels.shape[:2], annotation.shape
            raise DataError(
                self.name,
                f"the annotation of frame {frame.index} is {columns}x{rows}, "
                f"the frame {width}x{height}",
            )
        return annotation


def objects_in(annotation: NDArray[np.uint8]) -> tuple[int, ...]:
    """Return the objects of an annotation, in order."""
    counts = np.bincount(annotation.ravel(), minlength=VOID + 1)
    return tuple(int(each) for each in np.flatnonzero(counts[1:VOID]) + 1)

"""What a user says an object is: points, a box or a mask on one frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phoneward.errors import PromptError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# slots of the prompt stage; a box takes two, as its corners
MOST_POINTS = 16


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt for one object on one frame, in pixels of the source.

    Pixel (x, y) covers x to x + 1 and y to y + 1, so that a frame reaches from (0, 0) to
    (width, height).

    Attributes:
        object_id: a name of the user's choice, 0 or more; further prompts for it refine it.
        points: (x, y) positions.
        labels: one a point: 1 on the object, 0 beside it.
        box: (x0, y0, x1, y1) around the object, x0 < x1 and y0 < y1; goes with points.
        mask: bool of shape (H, W), True on the object; goes alone.

    Raises:
        PromptError: when made of anything else.
    """

    object_id: int
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.object_id < 0:
            raise PromptError(f"object {self.object_id} is negative")
        self._check_points()
        if self.box is not None:
            _check_box(self.box)
        if self.mask is not None:
            self._check_mask()
        elif not self.points and self.box is None:
            raise PromptError(f"object {self.object_id} has neither points nor a box nor a mask")

    def check_inside(self, height: int, width: int) -> None:
        """Raise `PromptError` unless everything lies inside a frame of this size."""
        size = f"the frame of {width}x{height}"
        for x, y in self.points:
            if not (0 <= x < width and 0 <= y < height):
                raise PromptError(f"point {x:g},{y:g} is outside {size}")
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if not (x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height):
                raise PromptError(f"box {x0:g},{y0:g},{x1:g},{y1:g} is outside {size}")
        if self.mask is not None and self.mask.shape != (height, width):
            rows, columns = self.mask.shape
            raise PromptError(f"mask of {columns}x{rows} is not of the size of {size}")

    def _check_points(self) -> None:
        if len(self.points) != len(self.labels):
            raise PromptError(f"{len(self.points)} points have {len(self.labels)} labels")
        if not set(self.labels) <= {0, 1}:
            raise PromptError(f"labels {self.labels} are not all 0 or 1")
        if not all(math.isfinite(value) for point in self.points for value in point):
            raise PromptError("a point is not finite")
        slots = len(self.points) + (2 if self.box is not None else 0)
        if slots > MOST_POINTS:
            raise PromptError(
                f"object {self.object_id} has {slots} points (a box counts as two);"
                f" one frame takes {MOST_POINTS}"
            )

    def _check_mask(self) -> None:
        if self.points or self.box is not None:
            raise PromptError(f"object {self.object_id} has a mask beside points or a box")
        if self.mask is None or self.mask.ndim != 2 or self.mask.dtype != np.bool_:
            raise PromptError("a mask is not a two-dimensional array of bool")


def _check_box(box: tuple[float, float, float, float]) -> None:
    x0, y0, x1, y1 = box
    if not all(map(math.isfinite, box)) or x0 >= x1 or y0 >= y1:
        raise PromptError(f"box {x0:g},{y0:g},{x1:g},{y1:g} is not x0,y0,x1,y1 with x0<x1, y0<y1")

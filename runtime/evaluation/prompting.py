"""An annotated object as the prompt that a user might have given for it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from phoneward.errors import PromptError
from phoneward.runtime.outputs import bbox_of
from phoneward.runtime.prompts import Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PromptKind(str, Enum):
    """What a tracker is told of an object: its mask, one click on it, or the box around it."""

    MASK = "mask"
    CLICK = "click"
    BOX = "box"


def prompt_of(kind: PromptKind, object_id: int, mask: NDArray[np.bool_]) -> Prompt:
    """Return the prompt for an object that covers `mask` (H, W).

    The click is in the middle of the pixel that is farthest from all that is not the object.

    Raises:
        PromptError: the mask is empty.
    """
    if not mask.any():
        raise PromptError(f"object {object_id} has an empty mask: nothing to click on or to box")
    if kind is PromptKind.MASK:
        return Prompt(object_id, mask=mask)
    if kind is PromptKind.CLICK:
        x, y = deepest_pixel(mask)
        return Prompt(object_id, points=((x + 0.5, y + 0.5),), labels=(1,))
    x, y, width, height = bbox_of(mask)
    return Prompt(object_id, box=(x, y, x + width, y + height))


def deepest_pixel(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the (x, y) of the pixel of a mask (H, W) with the largest distance to its outside.

    The mask has a pixel; beyond the frame is outside. Of several pixels the first in reading
    order, as the simulated clicks of SAM 2 are chosen.
    """
    x, y, width, height = bbox_of(mask)
    part = np.pad(mask[y : y + height, x : x + width], 1)
    row, column = np.unravel_index(int(squared_distance(part).argmax()), part.shape)
    return x + int(column) - 1, y + int(row) - 1


def squared_distance(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return each pixel's squared Euclidean distance to the nearest one outside the mask (H, W).

    Exact. The distance along the columns comes first; then steps to either side, as long as a
    step alone is no longer than a distance that is left. The outer rows and columns are outside
    the mask.
    """
    nearest = np.square(_column_distance(mask))
    result, step = nearest.copy(), 1
    while step < mask.shape[1] and step**2 < result.max():
        np.minimum(result[:, step:], nearest[:, :-step] + step**2, out=result[:, step:])
        np.minimum(result[:, :-step], nearest[:, step:] + step**2, out=result[:, :-step])
        step += 1
    return result


def _column_distance(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return each pixel's distance to the nearest one outside the mask in its column."""
    rows = np.arange(len(mask), dtype=np.int64)[:, None]
    above = np.maximum.accumulate(np.where(mask, 0, rows), axis=0)
    last = len(mask) - 1
    below = np.minimum.accumulate(np.where(mask, last, rows)[::-1], axis=0)[::-1]
    return np.minimum(rows - above, below - rows)

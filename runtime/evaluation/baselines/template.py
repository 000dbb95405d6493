"""The first mask, moved to wherever its first box is seen again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from phoneward.runtime.evaluation.baselines.base import Baseline, import_skimage
from phoneward.runtime.outputs import bbox_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class _Patch:
    """What the box showed at first (h, w), and its corner (row, column) at first and now."""

    pixels: NDArray[np.float32]
    scale: tuple[float, float]
    first: tuple[int, int]
    now: tuple[int, int]


class Template(Baseline):
    """Normalised cross-correlation (Lewis, 1995) around the last place, one box to every side.

    Where nothing is alike, or the box shows no structure, the mask stays.
    """

    def __init__(self) -> None:
        super().__init__()
        self._match = import_skimage("feature").match_template
        self._patches: dict[int, _Patch] = {}

    def reset(self) -> None:
        """Forget everything, to begin another sequence."""
        super().reset()
        self._patches = {}

    def _begin(self, object_id: int, mask: NDArray[np.bool_], seen: NDArray[np.float32]) -> None:
        (height, width), (rows, columns) = mask.shape, seen.shape
        x, y, wide, high = bbox_of(mask)
        top, left = y * rows // height, x * columns // width
        bottom = max(top + 1, -(-(y + high) * rows // height))
        right = max(left + 1, -(-(x + wide) * columns // width))
        scale = height / rows, width / columns
        self._patches[object_id] = _Patch(
            seen[top:bottom, left:right], scale, (top, left), (top, left)
        )

    def _move(self, before: NDArray[np.float32], now: NDArray[np.float32]) -> None:
        self._patches = {each: self._found(one, now) for each, one in self._patches.items()}

    def _found(self, patch: _Patch, frame: NDArray[np.float32]) -> _Patch:
        (high, wide), (top, left) = patch.pixels.shape, patch.now
        row, column = max(0, top - high), max(0, left - wide)
        window = frame[row : top + 2 * high, column : left + 2 * wide]
        if not np.ptp(patch.pixels):
            return patch
        alike = self._match(window, patch.pixels)
        if alike.max() <= 0:
            return patch
        down, along = np.unravel_index(int(alike.argmax()), alike.shape)
        return replace(patch, now=(row + int(down), column + int(along)))

    def _mask(self, object_id: int) -> NDArray[np.bool_]:
        patch = self._patches[object_id]
        down = round((patch.now[0] - patch.first[0]) * patch.scale[0])
        along = round((patch.now[1] - patch.first[1]) * patch.scale[1])
        return shifted(self._masks[object_id], down, along)


def shifted(mask: NDArray[np.bool_], down: int, along: int) -> NDArray[np.bool_]:
    """Return a mask (H, W) moved by whole pixels; what leaves the frame is gone."""
    height, width = mask.shape
    result = np.zeros_like(mask)
    result[max(0, down) : height + min(0, down), max(0, along) : width + min(0, along)] = mask[
        max(0, -down) : height + min(0, -down), max(0, -along) : width + min(0, -along)
    ]
    return result

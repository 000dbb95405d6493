"""J and F, how well a mask and its contour agree with an annotation, and their statistics.

The definitions are those of DAVIS (Perazzi et al., CVPR 2016, and Pont-Tuset et al.,
arXiv 1704.00675), the conventions for empty masks those of its official evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from phoneward.errors import TensorMismatch
from phoneward.spec import Spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

# of the frame's diagonal: how far apart two contours may be and still match
TOLERANCE = 0.008
_RECALLED = 0.5
_BINS = 4


class Statistics(Spec):
    """What DAVIS reports of a measure.

    Attributes:
        mean: over the frames; of several objects, the mean over the objects of each one's.
        recall: share of the frames on which the measure is above 0.5.
        decay: mean of the first quarter of the frames minus that of the last; above 0 a tracker
            gets worse with time.
    """

    mean: float
    recall: float
    decay: float


def region_similarity(predicted: NDArray[np.bool_], annotated: NDArray[np.bool_]) -> float:
    """Return J: the area that two masks (H, W) share over the area that they cover, 0 to 1.

    Two empty masks agree: 1.

    Raises:
        TensorMismatch: they are not two bool arrays of one shape (H, W).
    """
    _check(predicted, annotated)
    union = int(np.count_nonzero(predicted | annotated))
    return int(np.count_nonzero(predicted & annotated)) / union if union else 1.0


def contour_accuracy(
    predicted: NDArray[np.bool_], annotated: NDArray[np.bool_], tolerance: float = TOLERANCE
) -> float:
    """Return F: the harmonic mean of the contours' precision and recall, 0 to 1.

    A pixel of a contour matches if one of the other contour lies within a distance of
    `ceil(tolerance * diagonal)` pixels, with the diagonal of the frame. Precision is the share of
    the predicted contour that matches, recall that of the annotated one. Without any contour on
    both sides F is 1, with one on only one side 0.

    Raises:
        TensorMismatch: they are not two bool arrays of one shape (H, W).
    """
    _check(predicted, annotated)
    radius = math.ceil(tolerance * math.hypot(*predicted.shape))
    rows, columns = _box(predicted | annotated)
    ours, theirs = contour(predicted[rows, columns]), contour(annotated[rows, columns])
    found, wanted = int(np.count_nonzero(ours)), int(np.count_nonzero(theirs))
    if not found or not wanted:
        return float(found == wanted)
    precision = np.count_nonzero(ours & dilated(theirs, radius)) / found
    recall = np.count_nonzero(theirs & dilated(ours, radius)) / wanted
    both = float(precision + recall)
    return 2 * float(precision * recall) / both if both else 0.0


def contour(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a mask (H, W) that differ from the next to the right, below or both.

    That is `seg2bmap` of the Berkeley segmentation benchmark, which DAVIS uses: a contour one pixel
    wide, half a pixel up and left of where it truly is. There is none along the frame's edges.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, across = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return np.asarray((mask != right) | (mask != below) | (mask != across), np.bool_)


def dilated(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return the pixels (H, W) that are no farther than `radius` from one of the mask.

    A disk is a stack of rows: the mask is widened by a pixel at a time, and every width laid over
    the rows whose distance asks for it.
    """
    height, width = mask.shape
    padded = np.pad(mask, radius)
    result = np.zeros_like(padded)
    wide, reach = padded.copy(), 0
    # farthest rows first: they are the shortest
    for distance in range(min(radius, height - 1), -1, -1):
        wanted = math.isqrt(radius**2 - distance**2)
        while reach < min(wanted, width):
            reach += 1
            wide[:, reach:] |= padded[:, :-reach]
            wide[:, :-reach] |= padded[:, reach:]
        result[distance:] |= wide[: len(wide) - distance]
        result[: len(wide) - distance] |= wide[distance:]
    return result[radius : radius + height, radius : radius + width]


def statistics(values: Sequence[float]) -> Statistics:
    """Return the statistics of one object's values over time, of which there is at least one.

    The quarters are those of DAVIS: their borders are rounded, and neighbors share a frame.
    """
    series = np.asarray(values, np.float64)
    # a hair more than half rounds up, whatever is even
    borders = np.round(np.linspace(1, len(series), _BINS + 1) + 1e-10).astype(np.intp) - 1
    first, last = series[: borders[1] + 1], series[borders[-2] :]
    return Statistics(
        mean=float(series.mean()),
        recall=float((series > _RECALLED).mean()),
        decay=float(first.mean() - last.mean()),
    )


def mean_of(objects: Sequence[Statistics]) -> Statistics:
    """Return the mean of each statistic over objects, of which there is at least one."""
    return Statistics(
        mean=float(np.mean([each.mean for each in objects])),
        recall=float(np.mean([each.recall for each in objects])),
        decay=float(np.mean([each.decay for each in objects])),
    )


def _check(predicted: NDArray[np.bool_], annotated: NDArray[np.bool_]) -> None:
    for mask in (predicted, annotated):
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise TensorMismatch(
                f"a mask is bool of shape (H, W), not {mask.dtype} of shape {mask.shape}"
            )
    if predicted.shape != annotated.shape:
        raise TensorMismatch(
            f"a mask of shape {predicted.shape} cannot be compared with one of {annotated.shape}"
        )


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns of a mask, with one more on each side where the frame has it."""
    slices = []
    for axis in (1, 0):
        marked = np.flatnonzero(mask.any(axis=axis))
        first, last = (int(marked[0]), int(marked[-1])) if marked.size else (0, -1)
        slices.append(slice(max(0, first - 1), last + 2))
    return slices[0], slices[1]

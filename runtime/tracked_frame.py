"""What a tracker answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phoneward.runtime.resample import resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.runtime.memory_bank import Entry


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """The objects on one frame, n of them, in the order of `object_ids`.

    `masks` (n, H, W) bool has the size of the frame, `logits` (n, 4g, 4g) float32 the model's.
    `scores` are logits, above 0 where the object is in sight; `ious` are the model's own estimate
    of its masks' quality, 0 to 1. `timings` has the milliseconds that this frame took by stage.
    """

    index: int
    object_ids: tuple[int, ...]
    masks: NDArray[np.bool_]
    logits: NDArray[np.float32]
    scores: tuple[float, ...]
    ious: tuple[float, ...]
    timings: Mapping[str, float]


def tracked_frame(
    index: int,
    size: tuple[int, int],
    side: int,
    entries: Mapping[int, Entry],
    timings: Mapping[str, float],
) -> TrackedFrame:
    """Say what is remembered of a frame, by object; `side` is that of the logits.

    The logits go to the frame's size (height, width) bilinearly; a pixel above 0 is the object's.
    """
    logits = [entry.logits[0, 0] for entry in entries.values()]
    masks = [resize(each, size) > 0 for each in logits]
    return TrackedFrame(
        index=index,
        object_ids=tuple(entries),
        masks=np.stack(masks) if masks else np.zeros((0, *size), np.bool_),
        logits=np.stack(logits) if logits else np.zeros((0, side, side), np.float32),
        scores=tuple(entry.score for entry in entries.values()),
        ious=tuple(entry.iou for entry in entries.values()),
        timings=timings,
    )

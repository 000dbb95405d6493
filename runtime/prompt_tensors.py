"""A user's prompt as the tensors of the `prompt` stage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.runtime.prompts import Prompt
    from phoneward.spec import TensorSpec

TOP_LEFT, BOTTOM_RIGHT, NO_POINT, UNUSED = 2, 3, -1, -2
"""Labels beside 1 (on the object) and 0 (beside it)."""


def clicks_of(prompt: Prompt, size: tuple[int, int], side: int) -> NDArray[np.float32]:
    """Return a prompt's points, a box's two corners first, in pixels of the model's image.

    Args:
        prompt: points and a box in pixels of the frame.
        size: the frame's height and width.
        side: the model's image is a square of this side.

    Returns:
        float32 (n, 3): x, y and label; n is 0 for a mask prompt.
    """
    rows = [(x, y, label) for (x, y), label in zip(prompt.points, prompt.labels, strict=True)]
    if prompt.box is not None:
        left, top, right, bottom = prompt.box
        rows = [(left, top, TOP_LEFT), (right, bottom, BOTTOM_RIGHT), *rows]
    height, width = size
    clicks = np.array(rows, np.float32).reshape(-1, 3)
    clicks[:, :2] = clicks[:, :2] / np.array((width, height), np.float32) * np.float32(side)
    return clicks


def prompt_tensors(
    specs: Iterable[TensorSpec],
    clicks: NDArray[np.float32],
    mask: NDArray[np.float32] | None,
    previous: NDArray[np.float32] | None,
) -> dict[str, NDArray[np.float32]]:
    """Return what the `prompt` stage reads beside `features` and `initial`.

    Args:
        specs: the inputs of the stage.
        clicks: what `clicks_of` returned, at most as many as the stage has places.
        mask: the mask prompt (1, 1, S, S) of 0 and 1, which goes without clicks.
        previous: the logits (1, 1, 4g, 4g) that this frame had before.
    """
    shapes = {spec.name: spec.shape for spec in specs}
    points = np.zeros(shapes["points"], np.float32)
    labels = np.full(shapes["labels"], UNUSED, np.float32)
    points[0, : len(clicks)] = clicks[:, :2]
    labels[0, : len(clicks)] = clicks[:, 2]
    if not len(clicks):
        labels[0, 0] = NO_POINT
    return {
        "points": points,
        "labels": labels,
        "mask": _or_zeros(mask, shapes["mask"]),
        "previous": _or_zeros(previous, shapes["previous"]),
        "has_mask": switch(mask is not None),
        "has_previous": switch(previous is not None),
    }


def switch(on: bool) -> NDArray[np.float32]:
    """Return what the stages read as yes or no: (1, 1) of 1 or 0."""
    return np.full((1, 1), on, np.float32)


def _or_zeros(array: NDArray[np.float32] | None, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32) if array is None else array

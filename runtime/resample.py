"""Frames, mask prompts and logits from one size to another, without torch.

Both kinds of bilinear resize count pixel centres at half pixels (`align_corners=False`). An output
pixel is a weighted sum of the same few input pixels along each axis, so that one table of indices
and weights an axis says it all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from phoneward.errors import TensorMismatch
from phoneward.runtime.images import prepare
from phoneward.spec import ImageSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.spec import TensorSpec


def frame_size(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """Return a frame's height and width; raises `TensorMismatch` unless it is (H, W, 3) uint8."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise TensorMismatch(
            f"a frame is uint8 of shape (H, W, 3), not {pixels.dtype} of shape {pixels.shape}"
        )
    return pixels.shape[0], pixels.shape[1]


def frame_tensor(pixels: NDArray[np.uint8], tensor: TensorSpec) -> NDArray[np.float32]:
    """Stretch a frame (H, W, 3) to a model's square with PIL's bicubic filter.

    That is what the official loader does. `tensor` is the image input, of shape (1, 3, S, S) in
    NCHW or (1, S, S, 3) in NHWC; the result has its shape and is float32, 0 to 255.

    Raises:
        InvalidSpec: the tensor is no image.
    """
    side = tensor.shape[2]
    spec = ImageSpec(height=side, width=side, fit="stretch")
    return prepare(Image.fromarray(pixels), spec, tensor)


def mask_tensor(mask: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """Resize a mask prompt (H, W) to a model's square: antialiased bilinear, then at least 0.5.

    Returns float32 (1, 1, side, side) of 0 and 1.
    """
    values = mask.astype(np.float32)
    if mask.shape != (side, side):
        values = resize(values, (side, side), antialias=True)
    return (values >= np.float32(0.5)).astype(np.float32)[None, None]


def resize(
    values: NDArray[np.float32], size: tuple[int, int], *, antialias: bool = False
) -> NDArray[np.float32]:
    """Resize the last two axes bilinearly to (H, W).

    The arithmetic is that of torch's `F.interpolate(mode="bilinear", align_corners=False)`. With
    `antialias` a shrinking filter grows as wide as the step, so that every pixel counts.
    """
    # columns first: what grows most, the rows, is then copied in whole rows
    return _along(_along(values, -1, size[1], antialias), -2, size[0], antialias)


def _along(
    values: NDArray[np.float32], axis: int, target: int, antialias: bool
) -> NDArray[np.float32]:
    source = values.shape[axis]
    if source == target:
        return values
    indices, weights = taps(source, target, antialias=antialias)
    if axis == -2:
        weights = weights[..., None]
    result = np.take(values, indices[:, 0], axis) * weights[:, 0]
    for tap in range(1, indices.shape[1]):
        result += np.take(values, indices[:, tap], axis) * weights[:, tap]
    return result


def taps(
    source: int, target: int, *, antialias: bool
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return which inputs (target, n) make up each output, and their weights (target, n).

    The weights are a triangle around the output's centre; its half width is one input pixel, or
    with `antialias` one output pixel if that is wider. They add up to one; beyond the edge they
    are zero (antialiased) or the edge's (not).
    """
    step = source / target
    reach = max(step, 1.0) if antialias else 1.0
    centres = (np.arange(target) + 0.5) * step - 0.5
    first = np.floor(centres - reach).astype(np.intp) + 1
    indices = first[:, None] + np.arange(int(np.ceil(2 * reach)))
    weights = np.maximum(0, 1 - np.abs(indices - centres[:, None]) / reach)
    if antialias:
        weights *= (indices >= 0) & (indices < source)
        weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(indices, 0, source - 1), weights.astype(np.float32)

"""Images at another size: resizing and cropping."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from phoneward.runtime.engines.mil.signature import Ints, Table

TABLE = Table()

# scales that stand for a size may be this much off it: coremltools adds 1e-4 before dividing
_OFF = 1e-3


@TABLE.mover
def upsample_nearest_neighbor(
    x: Tensor, scale_factor_height: float = 1.0, scale_factor_width: float = 1.0
) -> Tensor:
    for axis, scale in ((-2, scale_factor_height), (-1, scale_factor_width)):
        size = x.shape[axis]
        target = scaled_size(size, scale)
        by_size = abs(size * scale - target) < _OFF
        step = np.float32(size / target if by_size else 1 / scale)
        at = torch.from_numpy(np.arange(target, dtype=np.float32) * step)
        x = x.index_select(axis, at.long().clamp(max=size - 1))
    return x


@TABLE.mover
def resize_nearest_neighbor(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    return _nearest(x, (target_size_height, target_size_width))


@TABLE.op
def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1.0,
    scale_factor_width: float = 1.0,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    centres = not align_corners if half_pixel_centers is None else half_pixel_centers
    if align_corners and centres:
        raise ValueError("align_corners and half_pixel_centers exclude each other")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if centres else "DEFAULT"
    height = scaled_size(x.shape[-2], scale_factor_height)
    width = scaled_size(x.shape[-1], scale_factor_width)
    return linear(x, (height, width), mode)


@TABLE.op
def resize_bilinear(
    x: Tensor,
    target_size_height: int = 1,
    target_size_width: int = 1,
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    return linear(x, (target_size_height, target_size_width), sampling_mode)


def scaled_size(size: int, scale: float) -> int:
    """A size times a scale, rounded down in float32 as coremltools infers shapes."""
    return int(np.floor(np.float32(scale) * np.float32(size)))


def _strict(size: int, target: int) -> tuple[float, float]:
    return 0.0, (size - 1) / (target - 1) if target > 1 else 0.0


def _aligned(size: int, target: int) -> tuple[float, float]:
    return ((size - 1) / 2, 0.0) if target == 1 else _strict(size, target)


def _default(size: int, target: int) -> tuple[float, float]:
    return 0.0, size / target


def _offset(size: int, target: int) -> tuple[float, float]:
    step = max(1, size - 1) / target
    return step / 2, step


def _unaligned(size: int, target: int) -> tuple[float, float]:
    step = size / target
    return step / 2 - 0.5, step


# where the first of the target's points lies on the source, and how far apart they are
GRIDS: dict[str, Callable[[int, int], tuple[float, float]]] = {
    "STRICT_ALIGN_CORNERS": _strict,
    "ALIGN_CORNERS": _aligned,
    "DEFAULT": _default,
    "OFFSET_CORNERS": _offset,
    "UNALIGN_CORNERS": _unaligned,
}

# the same grids by PyTorch, which is faster
_ALIGN = {"STRICT_ALIGN_CORNERS": True, "UNALIGN_CORNERS": False}


def linear(x: Tensor, sizes: Ints, mode: str) -> Tensor:
    """Resize the last `len(sizes)` axes linearly, on the grid of a sampling mode.

    Raises:
        ValueError: there is no such mode.
    """
    if mode not in GRIDS:
        raise ValueError(f"no sampling_mode '{mode}'")
    if mode in _ALIGN and len(sizes) == 2:
        images = x.reshape(1, -1, *x.shape[-2:])
        resized = F.interpolate(images, sizes, mode="bilinear", align_corners=_ALIGN[mode])
        return resized.reshape(*x.shape[:-2], *sizes)
    for axis, target in enumerate(sizes, start=x.dim() - len(sizes)):
        size = x.shape[axis]
        first, step = GRIDS[mode](size, target)
        points = (first + step * torch.arange(target, dtype=torch.float64)).clamp(0, size - 1)
        x = _between(x, axis, points)
    return x


def _between(x: Tensor, axis: int, points: Tensor) -> Tensor:
    low = points.floor()
    part = (points - low).float().reshape([-1 if at == axis else 1 for at in range(x.dim())])
    index = low.long()
    after = (index + 1).clamp(max=x.shape[axis] - 1)
    return x.index_select(axis, index) * (1 - part) + x.index_select(axis, after) * part


def _nearest(x: Tensor, sizes: Ints) -> Tensor:
    """The pixel that a target pixel's centre falls into."""
    for axis, target in enumerate(sizes, start=x.dim() - len(sizes)):
        size = x.shape[axis]
        # whole numbers: a centre on the edge of two pixels belongs to the latter
        index = (2 * torch.arange(target) + 1) * size // (2 * target)
        x = x.index_select(axis, index)
    return x

"""Images read between their pixels: grids of sampling points, and values at any points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _strict(size: Tensor, target: int) -> tuple[Tensor, Tensor]:
    first = torch.zeros_like(size)
    return first, (size - 1) / (target - 1) if target > 1 else first


def _aligned(size: Tensor, target: int) -> tuple[Tensor, Tensor]:
    first, step = _strict(size, target)
    return ((size - 1) / 2, step) if target == 1 else (first, step)


def _default(size: Tensor, target: int) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(size), size / target


def _offset(size: Tensor, target: int) -> tuple[Tensor, Tensor]:
    step = (size - 1).clamp(min=1) / target
    return step / 2, step


def _unaligned(size: Tensor, target: int) -> tuple[Tensor, Tensor]:
    step = size / target
    return step / 2 - 0.5, step


# where the first of the target's points lies on [0, size - 1], and how far apart they are
_GRIDS: dict[str, Callable[[Tensor, int], tuple[Tensor, Tensor]]] = {
    "STRICT_ALIGN_CORNERS": _strict,
    "ALIGN_CORNERS": _aligned,
    "DEFAULT": _default,
    "OFFSET_CORNERS": _offset,
    "UNALIGN_CORNERS": _unaligned,
}
# these two also read an interval backwards
_ENDPOINTS = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS")


def grid(starts: Tensor, ends: Tensor, target: int, mode: str) -> Tensor:
    """`target` points on each interval from `starts` to `ends`, by a sampling mode of Core ML.

    Both are float64 (n,) in pixels; returns (n, target). No point lies outside of its interval.

    Raises:
        ValueError: there is no such mode, or an interval runs backwards where that is not defined.
    """
    if mode not in _GRIDS:
        raise ValueError(f"no sampling_mode '{mode}'")
    reach = ends - starts
    if mode not in _ENDPOINTS and bool((reach < 0).any()):
        raise ValueError(f"a box that ends before it starts, with sampling_mode '{mode}'")
    first, step = _GRIDS[mode](reach + 1 if mode not in _ENDPOINTS else reach.abs() + 1, target)
    offsets = first[:, None] + step[:, None] * torch.arange(target, dtype=torch.float64)
    inside = torch.minimum(offsets.clamp(min=0), reach.abs()[:, None])
    return starts[:, None] + inside * torch.where(reach < 0, -1.0, 1.0)[:, None]


def between(x: Tensor, axis: int, points: Tensor) -> Tensor:
    """Values at `points`, float64 (n,) in pixels of the image, along one axis of `x`."""
    low = points.floor()
    part = (points - low).float().reshape([-1 if at == axis else 1 for at in range(x.dim())])
    index = low.long()
    after = (index + 1).clamp(max=x.shape[axis] - 1)
    return x.index_select(axis, index) * (1 - part) + x.index_select(axis, after) * part


def lookup(x: Tensor, rows: Tensor, columns: Tensor, outside: float) -> Tensor:
    """Pixels (n, c, h, w) of images (n, c, H, W) at whole places (n, h, w).

    Places off the image read as `outside`.
    """
    height, width = x.shape[-2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    flat = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    index = flat.flatten(1)[:, None].expand(-1, x.shape[1], -1)
    values = x.flatten(2).gather(2, index).reshape(*x.shape[:2], *rows.shape[1:])
    return torch.where(inside[:, None], values, outside)


def bilinear(x: Tensor, rows: Tensor, columns: Tensor, outside: float) -> Tensor:
    """Values (n, c, h, w) of images (n, c, H, W) at places (n, h, w) between the pixels.

    Pixels off the image count as `outside`.
    """
    top, left = rows.floor(), columns.floor()
    down, right = (rows - top)[:, None], (columns - left)[:, None]
    top, left = top.long(), left.long()
    corners = (
        (top, left, (1 - down) * (1 - right)),
        (top, left + 1, (1 - down) * right),
        (top + 1, left, down * (1 - right)),
        (top + 1, left + 1, down * right),
    )
    total = torch.zeros(())
    for row, column, share in corners:
        total = total + lookup(x, row, column, outside) * share
    return total


def reflected(points: Tensor, low: float, high: float) -> Tensor:
    """Points mirrored at `low` and `high` as often as it takes to lie between them."""
    if high <= low:
        return torch.zeros_like(points)
    span = high - low
    away = (points - low).abs()
    turns = torch.floor(away / span)
    rest = away - turns * span
    return torch.where(turns % 2 == 0, rest, span - rest) + low

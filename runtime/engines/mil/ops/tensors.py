"""Whole tensors: filled, joined, sorted, searched."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from phoneward.runtime.engines.mil.numerics import Sums, rounded
from phoneward.runtime.engines.mil.signature import Ints, Table, Tensors

TABLE = Table()


@TABLE.mover
def identity(x: Any) -> Any:
    return x


@TABLE.mover
def shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)


@TABLE.mover
def concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    if values[0].dim() == 0:
        return torch.stack(values)
    if interleave:
        axis %= values[0].dim()
        return torch.stack(values, axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, axis)


@TABLE.mover
def stack(values: Tensors, axis: int) -> Tensor:
    return torch.stack(values, axis)


@TABLE.mover
def split(
    x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is None:
        if not num_splits:
            raise ValueError("neither a number of parts nor their sizes are given")
        part, rest = divmod(x.shape[axis], num_splits)
        if rest:
            raise ValueError(f"{num_splits} parts do not divide size {x.shape[axis]}")
        split_sizes = (part,) * num_splits
    return tuple(x.split(split_sizes, axis))


@TABLE.mover
def fill(shape: Ints, value: Tensor | None = None) -> Tensor:
    return (torch.zeros(()) if value is None else value.reshape(())).expand(shape).clone()


@TABLE.mover
def fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    # the result has the type of the value, whatever the other's type is
    return fill(tuple(ref_tensor.shape), value)


@TABLE.op
def range_1d(end: Tensor, start: Tensor, step: Tensor) -> Tensor:
    first, last, by = float(start), float(end), float(step)
    count = max(math.ceil((last - first) / by), 0)
    return start.reshape(()) + torch.arange(count, dtype=start.dtype) * step.reshape(())


@TABLE.mover
def tile(x: Tensor, reps: Ints) -> Tensor:
    return x.repeat(reps)


@TABLE.mover
def one_hot(
    indices: Tensor,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Tensor | None = None,
    off_value: Tensor | None = None,
) -> Tensor:
    # an index outside the range lights none
    hot = (indices.unsqueeze(-1) == torch.arange(one_hot_vector_size)).movedim(-1, axis)
    on = torch.tensor(1, dtype=torch.int32) if on_value is None else on_value.reshape(())
    off = torch.tensor(0, dtype=torch.int32) if off_value is None else off_value.reshape(())
    return torch.where(hot, on, off)


@TABLE.mover
def pad(x: Tensor, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    ends = list(zip(pad[::2], pad[1::2], strict=True))
    for axis, (before, after) in enumerate(ends, start=x.dim() - len(ends)):
        if before or after:
            x = _padded(x, axis, (before, after), mode, constant_val)
    return x


@TABLE.op
def cumsum(
    x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False, *, sums: Sums
) -> Tensor:
    if reverse:
        x = x.flip(axis)
    totals = x.cumsum(axis, dtype=x.dtype) if sums.exact else _rounded_sums(x, axis)
    if exclusive:
        ahead = torch.zeros_like(totals.narrow(axis, 0, 1))
        totals = torch.cat([ahead, totals.narrow(axis, 0, x.shape[axis] - 1)], axis)
    return totals.flip(axis) if reverse else totals


@TABLE.op
def argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    return x.sort(dim=axis, descending=not ascending, stable=True).indices.int()


@TABLE.mover
def topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str | None = None,
) -> tuple[Tensor, ...]:
    """The largest or smallest values; of equal ones the first, sorted whether asked for or not."""
    values, indices = x.sort(dim=axis, descending=not ascending, stable=True)
    count = x.shape[axis] if k == -1 else k
    best = values.narrow(axis, 0, count)
    return (best, indices.narrow(axis, 0, count).int()) if return_indices else (best,)


@TABLE.mover
def flatten2d(x: Tensor, axis: int = 1) -> Tensor:
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@TABLE.mover
def band_part(x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    rows, columns = x.shape[-2:]
    below = torch.arange(rows)[:, None] - torch.arange(columns)
    inside = torch.ones_like(below, dtype=torch.bool)
    if lower >= 0:
        inside &= below <= lower
    if upper >= 0:
        inside &= -below <= upper
    return torch.where(inside, x, torch.zeros((), dtype=x.dtype))


@TABLE.op
def non_zero(x: Tensor) -> Tensor:
    return x.nonzero().int()


@TABLE.mover
def non_maximum_suppression(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_boxes: int,
    score_threshold: float | None = None,
    per_class_suppression: bool = False,
) -> tuple[Tensor, ...]:
    """Keep the best of boxes that overlap, by Core ML's rules for the layer of that name.

    Boxes (n, B, 4) as centre and size, scores (n, B, K); from iOS 17 on, which has no threshold
    of scores, (n, 4, B) and (n, K, B), and no count of the boxes either. What is missing to
    `max_boxes` is filled with zeros, and indices with -1.
    """
    modern = score_threshold is None
    if modern:
        boxes, scores = boxes.mT, scores.mT
    lowest = -math.inf if score_threshold is None else score_threshold
    found = []
    for box, score in zip(boxes, scores, strict=True):
        best, kinds = score.max(dim=-1)
        groups = kinds if per_class_suppression else torch.zeros_like(kinds)
        found.append(_kept(box, best, groups, (iou_threshold, lowest), max_boxes))
    counts = torch.tensor([len(kept) for kept in found], dtype=torch.int32)
    indices = torch.tensor(
        [kept + [-1] * (max_boxes - len(kept)) for kept in found], dtype=torch.int32
    )
    empty = (indices < 0)[..., None]
    places = indices.clamp(min=0).long()[..., None]
    picked_boxes = boxes.take_along_dim(places, 1).masked_fill(empty, 0)
    picked_scores = scores.take_along_dim(places, 1).masked_fill(empty, 0)
    if modern:
        return picked_boxes.mT, picked_scores.mT, indices
    return picked_boxes, picked_scores, indices, counts


def _kept(
    boxes: Tensor, scores: Tensor, groups: Tensor, thresholds: tuple[float, float], most: int
) -> list[int]:
    """Indices of the boxes that stay, best first; the best one where none has the score for it."""
    most_overlap, lowest = thresholds
    order = scores.argsort(descending=True, stable=True).tolist()
    beaten = torch.zeros(len(scores), dtype=torch.bool)
    kept: list[int] = []
    for index in order:
        if len(kept) == most or not bool(scores[index] >= lowest):
            break
        if not bool(beaten[index]):
            kept.append(index)
            # by one box at a time: overlaps of all pairs of a detector's boxes take gigabytes
            overlaps = _overlaps(boxes[index], boxes)
            beaten |= (overlaps > most_overlap) & (groups == groups[index])
    return kept or order[:1]


def _overlaps(box: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union of one box with (B, 4) others, all given as centre and size."""
    (low, high), (lows, highs) = (
        (part[..., :2] - part[..., 2:] / 2, part[..., :2] + part[..., 2:] / 2)
        for part in (box, boxes)
    )
    sides = torch.minimum(high, highs) - torch.maximum(low, lows)
    common = sides.clamp(min=0).prod(-1)
    return common / (box[2:].prod() + boxes[:, 2:].prod(-1) - common)


def _padded(x: Tensor, axis: int, ends: tuple[int, int], mode: str, value: float) -> Tensor:
    before, after = ends
    size = x.shape[axis]
    if mode == "constant":
        shapes = [[*x.shape[:axis], amount, *x.shape[axis + 1 :]] for amount in ends]
        first, last = (torch.full(sizes, value, dtype=x.dtype) for sizes in shapes)
        return torch.cat([first, x, last], axis)
    at = torch.arange(-before, size + after)
    if mode == "reflect" and max(ends) < size:
        at = (size - 1) - ((size - 1) - at.abs()).abs()
    elif mode == "replicate" and max(ends) <= size:
        at = at.clamp(0, size - 1)
    else:
        raise ValueError(f"padding {size} values by {ends} in mode '{mode}'")
    return x.index_select(axis, at)


def _rounded_sums(x: Tensor, axis: int) -> Tensor:
    total = torch.zeros(())
    totals = []
    for part in x.split(1, dim=axis):
        total = rounded(total + part)
        totals.append(total)
    return torch.cat(totals, axis)

"""Values in another order: shapes, axes, slices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from phoneward.runtime.engines.mil.signature import Bools, Ints, Table, Tensors

TABLE = Table()


@TABLE.mover
def reshape(x: Tensor, shape: Ints) -> Tensor:
    """Reshape; a 0 takes over the size of `x`, counted from the last axis, or is 1 before it."""
    ahead = len(shape) - x.dim()
    sizes = [
        size if size != 0 else (x.shape[axis - ahead] if axis >= ahead else 1)
        for axis, size in enumerate(shape)
    ]
    return x.reshape(sizes)


@TABLE.mover
def reshape_like(
    x: Tensor, ref_tensors: Tensors, begins: Tensors, ends: Tensors, end_masks: Tensors
) -> Tensor:
    sizes: list[int] = []
    for ref, begin, end, mask in zip(ref_tensors, begins, ends, end_masks, strict=True):
        sizes += ref.shape[int(begin) : None if bool(mask) else int(end)]
    return x.reshape(sizes)


@TABLE.mover
def expand_dims(x: Tensor, axes: Ints) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@TABLE.mover
def squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    # axes of another size than 1 stay, as in torch
    return x.squeeze() if axes is None else x.squeeze(axes)


@TABLE.mover
def transpose(x: Tensor, perm: Ints) -> Tensor:
    return x.permute(perm)


@TABLE.mover
def reverse(x: Tensor, axes: Ints | None = None) -> Tensor:
    return x.flip(tuple(range(x.dim())) if axes is None else axes)


@TABLE.mover
def reverse_sequence(x: Tensor, lengths: Ints, seq_axis: int = 0, batch_axis: int = 0) -> Tensor:
    parts = []
    for part, length in zip(x.split(1, dim=batch_axis), lengths, strict=True):
        rest = part.shape[seq_axis] - length
        head, tail = part.split([length, rest], dim=seq_axis)
        parts.append(torch.cat([head.flip(seq_axis), tail], dim=seq_axis))
    return torch.cat(parts, dim=batch_axis)


@TABLE.mover
def slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    none = (False,) * x.dim()
    first, last, single = begin_mask or none, end_mask or none, squeeze_mask or none
    steps = stride or (1,) * x.dim()
    for axis in reversed(range(x.dim())):
        start = None if first[axis] else begin[axis]
        if single[axis]:
            x = x.select(axis, start or 0)
        else:
            x = _sliced(x, axis, slice(start, None if last[axis] else end[axis], steps[axis]))
    return x


@TABLE.mover
def slice_update(
    x: Tensor,
    update: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    places = torch.arange(x.numel()).reshape(x.shape)
    places = slice_by_index(places, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    if places.numel() != update.numel():
        raise ValueError(f"an update of {tuple(update.shape)} for {tuple(places.shape)} places")
    # flatten returns the tensor itself where it has one axis
    flat = x.flatten().clone()
    flat[places.flatten()] = update.flatten()
    return flat.reshape(x.shape)


@TABLE.mover
def slice_by_size(x: Tensor, begin: Ints, size: Ints) -> Tensor:
    for axis, (start, length) in enumerate(zip(begin, size, strict=True)):
        first = start + x.shape[axis] if start < 0 else start
        x = x.narrow(axis, first, x.shape[axis] - first if length == -1 else length)
    return x


@TABLE.mover
def depth_to_space(x: Tensor, block_size: int) -> Tensor:
    # channels are ordered (row in block, column in block, channel), as TensorFlow has it
    n, c, h, w = x.shape
    blocks = x.reshape(n, block_size, block_size, -1, h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // block_size**2, h * block_size, w * block_size)


@TABLE.mover
def space_to_depth(x: Tensor, block_size: int) -> Tensor:
    n, c, h, w = x.shape
    rows, columns = h // block_size, w // block_size
    blocks = x.reshape(n, c, rows, block_size, columns, block_size).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, c * block_size**2, rows, columns)


@TABLE.mover
def space_to_batch(x: Tensor, block_shape: Ints, paddings: Ints) -> Tensor:
    above, below, left, right = paddings
    x = F.pad(x, (left, right, above, below))
    n, c, h, w = x.shape
    high, wide = block_shape
    blocks = x.reshape(n, c, h // high, high, w // wide, wide).permute(3, 5, 0, 1, 2, 4)
    return blocks.reshape(n * high * wide, c, h // high, w // wide)


@TABLE.mover
def batch_to_space(x: Tensor, block_shape: Ints, crops: Ints) -> Tensor:
    n, c, h, w = x.shape
    high, wide = block_shape
    above, below, left, right = crops
    blocks = x.reshape(high, wide, n // (high * wide), c, h, w).permute(2, 3, 4, 0, 5, 1)
    image = blocks.reshape(n // (high * wide), c, h * high, w * wide)
    return image[:, :, above : h * high - below, left : w * wide - right]


@TABLE.mover
def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    return F.pixel_shuffle(x, upscale_factor)


@TABLE.mover
def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    return F.pixel_unshuffle(x, downscale_factor)


@TABLE.mover
def sliding_windows(x: Tensor, axis: int, size: int, stride: int = 1) -> Tensor:
    axis %= x.dim()
    return x.unfold(axis, size, stride).movedim(-1, axis + 1)


def _sliced(x: Tensor, axis: int, part: slice) -> Tensor:
    picked = range(x.shape[axis])[part]
    if picked.step > 0:
        return x[(slice(None),) * axis + (part,)]
    return x.index_select(axis, torch.tensor(picked, dtype=torch.int64))

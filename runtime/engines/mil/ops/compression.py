"""Compressed weights, unpacked; quantization of values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from phoneward.runtime.engines.mil.signature import Ints, Table

TABLE = Table()

_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


@TABLE.op
def constexpr_affine_dequantize(
    quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int
) -> Tensor:
    shifted = quantized_data - _along(zero_point, quantized_data, axis)
    return _along(scale, quantized_data, axis) * shifted.float()


@TABLE.mover
def constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    if output_dtype != "fp32":
        raise ValueError(f"no cast to {output_dtype}: it makes fp32 of fp16")
    return source_val


@TABLE.mover
def constexpr_lut_to_dense(
    indices: Tensor, lut: Tensor, shape: Ints | None = None, vector_axis: int | None = None
) -> Tensor:
    if shape is None:
        return _looked_up(indices, lut, vector_axis)
    bits = int(math.log2(lut.numel()))
    return lut[_unpacked(indices, bits, math.prod(shape)).long()].reshape(shape)


@TABLE.mover
def constexpr_sparse_to_dense(
    nonzero_data: Tensor, mask: Tensor, shape: Ints | None = None
) -> Tensor:
    if shape is not None:
        mask = _unpacked(mask, 1, math.prod(shape)).reshape(shape)
    return _spread(nonzero_data, mask)


@TABLE.op
def constexpr_blockwise_shift_scale(
    data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> Tensor:
    shifted = data if offset is None else data - _blocks(offset, data.shape)
    return _blocks(scale, data.shape) * shifted.float()


@TABLE.mover
def constexpr_lut_to_sparse(
    indices_mask: Tensor,
    indices_nonzero_data: Tensor,
    lut: Tensor,
    vector_axis: int | None = None,
) -> tuple[Tensor, Tensor]:
    values = _looked_up(_spread(indices_nonzero_data, indices_mask), lut, vector_axis)
    mask = indices_mask
    if vector_axis is not None:
        mask = mask.repeat_interleave(lut.shape[-1], dim=vector_axis)
    return mask, values[mask.bool()]


@TABLE.op
def constexpr_sparse_blockwise_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    dense = constexpr_blockwise_shift_scale(_spread(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask.bool()]


@TABLE.mover
def quantize(
    input: Tensor,  # noqa: A002 - the op's own name for it
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """Halves go to the even number, as in coremltools' own computation."""
    if output_dtype not in _RANGES:
        raise ValueError(f"no quantization to {output_dtype}")
    steps = (input / _along(scale, input, axis)).round()
    if zero_point is not None:
        steps = steps + _along(zero_point, input, axis)
    return steps.clamp(*_RANGES[output_dtype]).int()


@TABLE.op
def dequantize(
    input: Tensor,  # noqa: A002 - the op's own name for it
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    shifted = input if zero_point is None else input - _along(zero_point, input, axis)
    return _along(scale, input, axis) * shifted.float()


def _along(values: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Shape a vector so that it runs along an axis of `x`; leave a single value as it is."""
    if values.dim() == 0 or axis is None:
        return values
    shape = [1] * x.dim()
    shape[axis] = values.numel()
    return values.reshape(shape)


def _unpacked(packed: Tensor, bits: int, count: int) -> Tensor:
    """Numbers of `bits` bits each, packed from every byte's lowest bit on."""
    # a byte for each bit, and not eight of torch's: models have 10**8 weights
    single = np.unpackbits(packed.numpy().astype(np.uint8), bitorder="little")
    digits = single[: count * bits].reshape(count, bits)
    return torch.from_numpy(np.packbits(digits, axis=1, bitorder="little")[:, 0])


def _blocks(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat values so that each covers its block of a tensor of `shape`."""
    for axis, (size, parts) in enumerate(zip(shape, values.shape, strict=True)):
        if parts not in (1, size):
            values = values.repeat_interleave(size // parts, dim=axis)
    return values


def _looked_up(indices: Tensor, lut: Tensor, vector_axis: int | None) -> Tensor:
    """Entries of tables (one for each block of `indices`), each a vector along `vector_axis`."""
    *groups, entries, width = lut.shape
    # which table an index belongs to, then its entry in all the tables together
    tables = torch.arange(math.prod(groups)).reshape(groups)
    rows = _blocks(tables, indices.shape) * entries + indices
    vectors = lut.reshape(-1, width)[rows.long()]
    if width == 1 or vector_axis is None:
        return vectors[..., 0]
    axis = vector_axis % indices.dim()
    return vectors.movedim(-1, axis + 1).flatten(axis, axis + 1)


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """Values at the ones of a mask, zeros elsewhere."""
    kept = mask.bool()
    if int(kept.sum()) != values.numel():
        raise ValueError(f"{values.numel()} values for {int(kept.sum())} ones of the mask")
    dense = values.new_zeros(mask.shape)
    dense[kept] = values
    return dense

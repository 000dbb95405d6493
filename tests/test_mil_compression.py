"""Compressed weights come out as coremltools unpacks them, and as numpy does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tests.mil_ops import Largest, inferred, one, run

relaxed = settings(max_examples=30, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)
DUMMY = np.zeros(1, np.float32)
NEW, OLD = ct.target.iOS18, ct.target.iOS16
BITS = {
    1: types.uint1,
    2: types.uint2,
    3: types.uint3,
    4: types.uint4,
    6: types.uint6,
    8: types.uint8,
}


def both(make: Callable[[], Any], target: Any = NEW) -> tuple[list[Tensor], list[NDArray[Any]]]:
    """What the engine unpacks, and what coremltools does."""
    made: list[Any] = []

    def body(x: Any) -> Any:
        made.append(make())
        return made[-1]

    results = run(body, {"x": DUMMY}, target)
    first = made[-1][0] if isinstance(made[-1], (list, tuple)) else made[-1]
    expected = first.op.materialized_val_inference()
    return results, list(expected) if isinstance(expected, tuple) else [expected]


def agree(make: Callable[[], Any], target: Any = NEW, tolerance: float = 0.0) -> list[Tensor]:
    results, expected = both(make, target)
    for result, value in zip(results, expected, strict=True):
        assert tuple(result.shape) == value.shape
        np.testing.assert_allclose(
            result.numpy(), value.astype(np.float32), rtol=tolerance, atol=tolerance
        )
    return results


def packed(array: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Numbers packed one bit after the other, written apart from the engine's way."""
    text = "".join(f"{int(value):0{bits}b}"[::-1] for value in array.reshape(-1))
    text += "0" * (-len(text) % 8)
    return np.array([int(text[i : i + 8][::-1], 2) for i in range(0, len(text), 8)], np.uint8)


def typed(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    return array.astype(types.nptype_from_builtin(dtype))


@relaxed
@given(
    seed=seeds,
    axis=st.integers(-3, 2),
    vector=st.booleans(),
    signed=st.booleans(),
    half=st.booleans(),
)
def test_affine_dequantization(
    seed: int, axis: int, vector: bool, signed: bool, half: bool
) -> None:
    rng = np.random.default_rng(seed)
    kind: Any = np.int8 if signed else np.uint8
    data = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, (2, 3, 4)).astype(kind)
    size: Any = data.shape[axis] if vector else ()
    scale = rng.uniform(0.01, 2, size).astype(np.float16 if half else np.float32)
    zero = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, size).astype(kind)
    shape = [1, 1, 1]
    if vector:
        shape[axis] = data.shape[axis]
    agree(
        lambda: mb.constexpr_affine_dequantize(
            quantized_data=data, zero_point=zero, scale=scale[()], axis=axis
        ),
        OLD,
        1e-3 if half else 1e-6,
    )
    result = one(
        lambda x: mb.constexpr_affine_dequantize(
            quantized_data=data, zero_point=zero, scale=scale[()], axis=axis
        ),
        x=DUMMY,
    )
    exact = (data.astype(np.float64) - zero.astype(np.float64).reshape(shape)) * scale.astype(
        np.float64
    ).reshape(shape)
    np.testing.assert_array_equal(result.numpy(), exact.astype(scale.dtype).astype(np.float32))


def test_a_cast_of_half_precision() -> None:
    values = np.array([[0.1, -65504, 6e-8]], np.float16)
    (result,) = agree(lambda: mb.constexpr_cast(source_val=values, output_dtype="fp32"), OLD)
    np.testing.assert_array_equal(result.numpy(), values.astype(np.float32))


@relaxed
@given(
    seed=seeds,
    bits=st.sampled_from([1, 2, 4, 6, 8]),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    kind=st.sampled_from([np.float16, np.float32, np.int8, np.uint8]),
)
def test_packed_palettes(seed: int, bits: int, shape: list[int], kind: Any) -> None:
    rng = np.random.default_rng(seed)
    lut = rng.integers(0, 100, 2**bits).astype(kind)
    indices = rng.integers(0, 2**bits, shape)
    (result,) = agree(
        lambda: mb.constexpr_lut_to_dense(
            indices=packed(indices, bits), lut=lut, shape=np.array(shape, np.uint32)
        ),
        OLD,
    )
    np.testing.assert_array_equal(result.numpy(), lut[indices].astype(np.float32))


def test_packed_weights_take_eight_bytes_each_on_the_way() -> None:
    indices = np.random.default_rng(0).integers(0, 16, 4096)
    lut, shape = np.arange(16, dtype=np.float16), np.array([4096], np.uint32)
    with Largest() as largest:
        run(
            lambda x: mb.constexpr_lut_to_dense(indices=packed(indices, 4), lut=lut, shape=shape),
            {"x": DUMMY},
            OLD,
        )
    assert largest.size == 8 * indices.size


@relaxed
@given(seed=seeds, shape=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_packed_masks(seed: int, shape: list[int]) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 2, shape)
    dense = mask * rng.normal(size=shape).astype(np.float16)
    if not mask.any():
        return
    (result,) = agree(
        lambda: mb.constexpr_sparse_to_dense(
            nonzero_data=dense[mask == 1].astype(np.float16),
            mask=packed(mask, 1),
            shape=np.array(shape, np.uint32),
        ),
        OLD,
    )
    np.testing.assert_array_equal(result.numpy(), dense.astype(np.float32))


@relaxed
@given(
    seed=seeds,
    dtype=st.sampled_from([types.int4, types.uint4, types.int8, types.uint8]),
    blocks=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    parts=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    shifted=st.booleans(),
)
def test_scales_of_blocks(
    seed: int, dtype: Any, blocks: tuple[int, int], parts: tuple[int, int], shifted: bool
) -> None:
    rng = np.random.default_rng(seed)
    low, high = (0, 16) if dtype is types.uint4 else (-8, 8)
    if dtype is types.uint8:
        low, high = 0, 256
    data = rng.integers(low, high, (blocks[0] * parts[0], blocks[1] * parts[1]))
    scale = rng.uniform(0.01, 1, parts).astype(np.float32)
    offset = rng.integers(low, high, parts)
    (result,) = agree(
        lambda: mb.constexpr_blockwise_shift_scale(
            data=typed(data, dtype), scale=scale, offset=typed(offset, dtype) if shifted else None
        ),
        NEW,
        1e-6,
    )
    for i, j in np.ndindex(*data.shape):
        block = i // blocks[0], j // blocks[1]
        value = scale[block] * (data[i, j] - (offset[block] if shifted else 0))
        assert result[i, j] == pytest.approx(value, rel=1e-6)


@relaxed
@given(
    seed=seeds,
    bits=st.sampled_from([1, 2, 3, 4, 6, 8]),
    groups=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    width=st.integers(1, 3),
    axis=st.integers(-2, 1),
)
def test_palettes_of_groups_and_of_vectors(
    seed: int, bits: int, groups: tuple[int, int], width: int, axis: int
) -> None:
    rng = np.random.default_rng(seed)
    indices = rng.integers(0, 2**bits, (groups[0] * 2, groups[1] * 3))
    lut = rng.normal(size=(*groups, 2**bits, width)).astype(np.float32)
    (result,) = agree(
        lambda: mb.constexpr_lut_to_dense(
            indices=typed(indices, BITS[bits]), lut=lut, vector_axis=np.int32(axis)
        )
    )
    vectors = [
        [lut[i // 2, j // 3, indices[i, j]] for j in range(indices.shape[1])]
        for i in range(indices.shape[0])
    ]
    rows, columns = indices.shape
    along = np.array(vectors).transpose((0, 2, 1) if axis in (0, -2) else (0, 1, 2))
    shape = (rows * width, columns) if axis in (0, -2) else (rows, columns * width)
    np.testing.assert_array_equal(result.numpy(), along.reshape(shape))


@relaxed
@given(
    seed=seeds,
    bits=st.sampled_from([1, 2, 4]),
    width=st.integers(1, 2),
    axis=st.integers(0, 1),
)
def test_sparse_palettes_in_turn_made_dense(seed: int, bits: int, width: int, axis: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 2, (3, 4))
    mask[0, 0] = 1
    indices = rng.integers(0, 2**bits, int(mask.sum()))
    lut = rng.normal(size=(1, 1, 2**bits, width)).astype(np.float32)

    def make() -> Any:
        return mb.constexpr_lut_to_sparse(
            indices_mask=typed(mask, types.uint1),
            indices_nonzero_data=typed(indices, BITS[bits]),
            lut=lut,
            vector_axis=np.int32(axis) if width > 1 else None,
        )

    new_mask, values = agree(make)
    (dense,) = run(
        lambda x: (lambda pair: mb.constexpr_sparse_to_dense(nonzero_data=pair[1], mask=pair[0]))(
            make()
        ),
        {"x": DUMMY},
    )
    assert dense.count_nonzero() == mask.sum() * width
    np.testing.assert_array_equal(dense[new_mask.bool()].numpy(), values.numpy())


@relaxed
@given(seed=seeds, shifted=st.booleans())
def test_sparse_scales_in_turn_made_dense(seed: int, shifted: bool) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 2, (4, 6))
    mask[0, 0] = 1
    data = rng.integers(-128, 128, int(mask.sum())).astype(np.int8)
    scale = rng.uniform(0.01, 1, (4, 2)).astype(np.float32)
    offset = rng.integers(-9, 9, (4, 2)).astype(np.int8)

    def make() -> Any:
        return mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=typed(mask, types.uint1),
            nonzero_data=data,
            scale=scale,
            offset=offset if shifted else None,
        )

    agree(make, NEW, 1e-6)
    (dense,) = run(
        lambda x: (lambda pair: mb.constexpr_sparse_to_dense(nonzero_data=pair[1], mask=pair[0]))(
            make()
        ),
        {"x": DUMMY},
    )
    spread = np.zeros((4, 6), np.float32)
    spread[mask == 1] = data
    shift = np.repeat(offset, 3, 1) if shifted else 0
    expected = mask * np.repeat(scale, 3, 1) * (spread - shift)
    np.testing.assert_allclose(dense.numpy(), expected, rtol=1e-6)


@relaxed
@given(
    seed=seeds,
    kind=st.sampled_from([np.int8, np.uint8]),
    axis=st.sampled_from([None, 0, 1, -1]),
    shifted=st.booleans(),
)
def test_quantization_and_back(seed: int, kind: Any, axis: int | None, shifted: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 60, (2, 3)).astype(np.float32)
    size: Any = () if axis is None else x.shape[axis]
    # powers of two, so that the halves are halves
    scale = (2.0 ** rng.integers(-2, 2, size)).astype(np.float32)[()]
    x = np.round(x * 4) / 4
    zero = rng.integers(0, 50, size).astype(kind)[()] if shifted else None
    name = np.dtype(kind).name
    given_inputs = {"scale": scale, "zero_point": zero, "axis": axis}
    steps = one(lambda x: mb.quantize(input=x, output_dtype=name, **given_inputs), x=x)
    (known,) = inferred(lambda: mb.quantize(input=x, output_dtype=name, **given_inputs))
    np.testing.assert_array_equal(steps.numpy(), known)

    side = (-1, 1) if axis == 0 else (1, -1)
    spread = np.reshape(scale, side)
    shift = 0 if zero is None else np.reshape(zero, side).astype(np.int32)
    limits = np.iinfo(kind)
    direct = np.clip(np.rint(x / spread) + shift, limits.min, limits.max)
    np.testing.assert_array_equal(steps.numpy(), direct)

    back = one(
        lambda x: mb.dequantize(
            input=mb.quantize(input=x, output_dtype=name, **given_inputs), **given_inputs
        ),
        x=x,
    )
    np.testing.assert_array_equal(back.numpy(), (direct - shift) * spread)


def test_a_mask_that_does_not_count_its_values_is_refused() -> None:
    from phoneward.runtime.engines.mil.ops.compression import constexpr_sparse_to_dense

    with pytest.raises(ValueError, match="2 values for 3 ones"):
        constexpr_sparse_to_dense(torch.ones(2), torch.tensor([1, 1, 0, 1]))

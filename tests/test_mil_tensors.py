"""Ops on whole tensors give what numpy gives."""

from __future__ import annotations

from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.numerics import Numerics
from phoneward.runtime.engines.mil.ops.tensors import pad, split
from tests.mil_ops import inferred, one, run

relaxed = settings(max_examples=30, deadline=None, derandomize=True)
shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)
VALUES = st.floats(-100, 100, width=32)
floats = hnp.arrays(np.float32, shapes, elements=VALUES)
ties = hnp.arrays(np.int32, shapes, elements=st.integers(-3, 3))


def axis_of(x: NDArray[Any]) -> st.SearchStrategy[int]:
    return st.integers(-x.ndim, x.ndim - 1)


@relaxed
@given(x=floats)
def test_shape_and_identity(x: NDArray[np.float32]) -> None:
    assert one(lambda x: mb.shape(x=x), x=x).tolist() == list(x.shape)
    np.testing.assert_array_equal(one(lambda x: mb.identity(x=x), x=x).numpy(), x)


@relaxed
@given(x=floats, data=st.data())
def test_concat(x: NDArray[np.float32], data: st.DataObject) -> None:
    axis = data.draw(axis_of(x))
    longer = np.concatenate([x, -x], axis)
    result = one(lambda x, y: mb.concat(values=[x, y, x], axis=axis), x=x, y=longer)
    np.testing.assert_array_equal(result.numpy(), np.concatenate([x, longer, x], axis))


@relaxed
@given(x=floats, data=st.data())
def test_interleaved_concat_takes_turns(x: NDArray[np.float32], data: st.DataObject) -> None:
    axis = data.draw(axis_of(x))
    result = one(
        lambda x, y, z: mb.concat(values=[x, y, z], axis=axis, interleave=True),
        x=x,
        y=x + 1,
        z=x + 2,
    )
    for turn in range(3):
        picked = result.index_select(axis % x.ndim, torch.arange(turn, 3 * x.shape[axis], 3))
        np.testing.assert_array_equal(picked.numpy(), x + turn)


def test_concat_of_scalars_is_a_vector() -> None:
    def body(x: Any) -> Any:
        return mb.concat(values=[mb.reduce_sum(x=x), mb.reduce_max(x=x)], axis=0)

    assert one(body, x=np.array([1, 2, 3], np.float32)).tolist() == [6, 3]


@relaxed
@given(x=floats, data=st.data())
def test_stack(x: NDArray[np.float32], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim))
    result = one(lambda x, y: mb.stack(values=[x, y], axis=axis), x=x, y=-x)
    np.testing.assert_array_equal(result.numpy(), np.stack([x, -x], axis))


@relaxed
@given(x=floats, parts=st.integers(1, 3), data=st.data())
def test_split_into_equal_parts(x: NDArray[np.float32], parts: int, data: st.DataObject) -> None:
    axis = data.draw(axis_of(x))
    whole = np.concatenate([x] * parts, axis)
    results = run(lambda x: mb.split(x=x, num_splits=parts, axis=axis), {"x": whole})
    assert len(results) == parts
    for result in results:
        np.testing.assert_array_equal(result.numpy(), x)


@relaxed
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), named=st.booleans())
def test_split_by_sizes(sizes: list[int], named: bool) -> None:
    x = np.arange(sum(sizes) * 2, dtype=np.float32).reshape(2, -1)
    count = {"num_splits": len(sizes)} if named else {}
    results = run(lambda x: mb.split(x=x, split_sizes=sizes, axis=-1, **count), {"x": x})
    expected = np.split(x, np.cumsum(sizes)[:-1], axis=-1)
    for result, part in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.numpy(), part)


def test_a_split_that_leaves_a_rest_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 parts"):
        split(torch.zeros(3), 0, num_splits=2)
    with pytest.raises(ValueError, match="neither"):
        split(torch.zeros(3), 0)


@pytest.mark.parametrize("value", [np.float32(0.5), np.int32(7), np.bool_(True), None])
def test_fill(value: Any) -> None:
    how = {} if value is None else {"value": value}
    result = one(lambda s: mb.fill(shape=s, **how), s=np.array([2, 3], np.int32))
    expected = np.full((2, 3), 0.0 if value is None else value)
    np.testing.assert_array_equal(result.numpy(), expected)
    assert result.is_floating_point() == (expected.dtype.kind == "f")


@pytest.mark.parametrize("value", [np.float16(0.1), np.int32(7), np.bool_(True)])
def test_fill_like_has_the_type_of_the_value(value: Any) -> None:
    x = np.zeros((2, 3), np.float32)
    result = one(lambda x: mb.fill_like(ref_tensor=x, value=value), x=x)
    np.testing.assert_array_equal(
        result.numpy(), np.full((2, 3), value).astype(result.numpy().dtype)
    )
    assert result.dtype == {"f": torch.float32, "i": torch.int32, "b": torch.bool}[value.dtype.kind]


@relaxed
@given(
    start=st.integers(-20, 20),
    count=st.integers(0, 9),
    step=st.integers(-4, 4),
    part=st.integers(0, 3),
)
def test_range_of_integers(start: int, count: int, step: int, part: int) -> None:
    step = step or 1
    end = start + count * step - (part % abs(step) if step > 0 else -(part % abs(step)))

    def body(start: Any, end: Any) -> Any:
        return mb.range_1d(start=mb.squeeze(x=start), end=mb.squeeze(x=end), step=np.int32(step))

    result = one(body, start=np.array([start], np.int32), end=np.array([end], np.int32))
    assert result.dtype == torch.int32
    assert result.tolist() == list(range(start, end, step))


def test_range_of_floats() -> None:
    def body(end: Any) -> Any:
        end = mb.squeeze(x=end)
        return mb.range_1d(start=np.float32(0.5), end=end, step=np.float32(0.25))

    result = one(body, end=np.array([1.4], np.float32))
    assert result.tolist() == [0.5, 0.75, 1, 1.25]


@relaxed
@given(x=floats, data=st.data())
def test_tile(x: NDArray[np.float32], data: st.DataObject) -> None:
    reps = data.draw(st.lists(st.integers(1, 3), min_size=x.ndim, max_size=x.ndim))
    result = one(lambda x: mb.tile(x=x, reps=reps), x=x)
    np.testing.assert_array_equal(result.numpy(), np.tile(x, reps))


@relaxed
@given(indices=hnp.arrays(np.int32, shapes, elements=st.integers(-2, 6)), data=st.data())
def test_one_hot(indices: NDArray[np.int32], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-indices.ndim - 1, indices.ndim))
    on, off = np.float32(2.5), np.float32(-1)
    result = one(
        lambda x: mb.one_hot(
            indices=x, one_hot_vector_size=5, axis=axis, on_value=on, off_value=off
        ),
        x=indices,
    )
    # an index outside of the range lights none
    rows = np.concatenate([np.eye(5), np.zeros((1, 5))])
    hot = rows[np.where((indices >= 0) & (indices < 5), indices, 5)]
    np.testing.assert_array_equal(result.numpy(), np.moveaxis(np.where(hot, on, off), -1, axis))


def test_one_hot_by_default_is_of_integers() -> None:
    result = one(
        lambda x: mb.one_hot(indices=x, one_hot_vector_size=3), x=np.array([2, 0], np.int32)
    )
    assert result.dtype == torch.int32
    assert result.tolist() == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@relaxed
@given(x=floats, data=st.data())
def test_pad(mode: str, x: NDArray[np.float32], data: st.DataObject) -> None:
    padded = data.draw(st.integers(1, x.ndim))
    ends = [(0, 0)] * (x.ndim - padded)
    for size in x.shape[-padded:]:
        most = {"constant": 3, "reflect": size - 1, "replicate": size}[mode]
        ends.append((data.draw(st.integers(0, most)), data.draw(st.integers(0, most))))
    flat = np.array(ends[-padded:], np.int32).reshape(-1)
    value = np.float32(1.5)
    result = one(lambda x: mb.pad(x=x, pad=flat, mode=mode, constant_val=value), x=x)
    numpys = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}[mode]
    extra = {"constant_values": value} if mode == "constant" else {}
    np.testing.assert_array_equal(result.numpy(), np.pad(x, ends, numpys, **extra))


@pytest.mark.parametrize(("mode", "amount"), [("reflect", 3), ("replicate", 4), ("wrap", 1)])
def test_padding_beyond_what_is_defined_is_an_error(mode: str, amount: int) -> None:
    with pytest.raises(ValueError, match=mode):
        pad(torch.zeros(3), (0, amount), mode)


@relaxed
@given(x=floats, data=st.data(), exclusive=st.booleans(), reverse=st.booleans())
def test_cumsum(
    x: NDArray[np.float32], data: st.DataObject, exclusive: bool, reverse: bool
) -> None:
    axis = data.draw(st.integers(-1, x.ndim - 1))
    result = one(lambda x: mb.cumsum(x=x, axis=axis, exclusive=exclusive, reverse=reverse), x=x)
    ordered = np.flip(x, axis) if reverse else x
    sums = np.cumsum(ordered.astype(np.float64), axis)
    sums = sums - ordered if exclusive else sums
    expected = np.flip(sums, axis) if reverse else sums
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-3)


def test_cumsums_as_core_ml_describes_them() -> None:
    x = np.array([4, 6, 7], np.int32)
    found = {
        (exclusive, reverse): one(
            lambda x, e=exclusive, r=reverse: mb.cumsum(x=x, exclusive=e, reverse=r), x=x
        ).tolist()
        for exclusive in (False, True)
        for reverse in (False, True)
    }
    assert found == {
        (False, False): [4, 10, 17],
        (True, False): [0, 4, 10],
        (False, True): [17, 13, 7],
        (True, True): [13, 7, 0],
    }


def test_a_cumsum_of_integers_wraps_and_one_of_half_sums_stalls() -> None:
    x = np.array([2**31 - 1, 1], np.int32)
    assert one(lambda x: mb.cumsum(x=x), x=x).tolist() == [2**31 - 1, -(2**31)]
    ones = {"x": np.ones(4096, np.float16)}
    (worst,) = run(lambda x: mb.cumsum(x=x), ones, numerics=Numerics.HALF_SUMS)
    assert worst[-1] == 2048


@relaxed
@given(x=ties, data=st.data(), ascending=st.booleans())
def test_argsort_keeps_the_order_of_equals(
    x: NDArray[np.int32], data: st.DataObject, ascending: bool
) -> None:
    axis = data.draw(axis_of(x))
    result = one(lambda x: mb.argsort(x=x, axis=axis, ascending=ascending), x=x)
    expected = np.argsort(x if ascending else -x, axis, kind="stable")
    assert result.dtype == torch.int32
    np.testing.assert_array_equal(result.numpy(), expected)


@relaxed
@given(x=ties, data=st.data(), ascending=st.booleans())
def test_topk(x: NDArray[np.int32], data: st.DataObject, ascending: bool) -> None:
    axis = data.draw(axis_of(x))
    k = data.draw(st.integers(1, x.shape[axis]))
    values, indices = run(lambda x: mb.topk(x=x, k=k, axis=axis, ascending=ascending), {"x": x})
    order = np.argsort(x if ascending else -x, axis, kind="stable").take(range(k), axis)
    np.testing.assert_array_equal(indices.numpy(), order)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, order, axis))


def test_topk_of_each_age() -> None:
    arrays = {"x": np.array([[3, 1, 2]], np.float32)}
    old = run(lambda x: mb.topk(x=x, k=2), arrays, ct.target.iOS15)
    assert [value.tolist() for value in old] == [[[3, 2]], [[0, 2]]]
    (values,) = run(
        lambda x: mb.topk(x=x, k=2, sort=False, return_indices=False), arrays, ct.target.iOS16
    )
    assert sorted(values.flatten().tolist()) == [2, 3]
    new = run(lambda x: mb.topk(x=x, k=2, output_indices_dtype="uint16"), arrays)
    assert new[1].tolist() == [[0, 2]]


@relaxed
@given(x=floats, data=st.data())
def test_flatten2d(x: NDArray[np.float32], data: st.DataObject) -> None:
    axis = data.draw(axis_of(x))
    result = one(lambda x: mb.flatten2d(x=x, axis=axis), x=x)
    np.testing.assert_array_equal(result.numpy(), x.reshape(np.prod(x.shape[:axis], dtype=int), -1))


@relaxed
@given(
    x=hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=VALUES),
    lower=st.integers(-1, 4),
    upper=st.integers(-1, 4),
)
def test_band_part(x: NDArray[np.float32], lower: int, upper: int) -> None:
    result = one(lambda x: mb.band_part(x=x, lower=lower, upper=upper), x=x)
    kept = np.triu(x, -lower) if lower >= 0 else x
    kept = np.tril(kept, upper) if upper >= 0 else kept
    np.testing.assert_array_equal(result.numpy(), kept)
    (expected,) = inferred(lambda: mb.band_part(x=x, lower=lower, upper=upper))
    np.testing.assert_array_equal(result.numpy(), expected)


def test_infinities_outside_a_band_are_gone() -> None:
    x = np.full((2, 2), np.inf, np.float32)
    result = one(lambda x: mb.band_part(x=x, lower=0, upper=0), x=x)
    assert result.tolist() == [[np.inf, 0], [0, np.inf]]


@relaxed
@given(x=hnp.arrays(np.int32, shapes, elements=st.integers(-1, 1)))
def test_non_zero(x: NDArray[np.int32]) -> None:
    result = one(lambda x: mb.non_zero(x=x), x=x)
    np.testing.assert_array_equal(result.numpy(), np.argwhere(x))


def test_a_range_without_steps_is_an_error() -> None:
    def body(step: Any) -> Any:
        return mb.range_1d(start=np.int32(0), end=np.int32(3), step=mb.squeeze(x=step))

    with pytest.raises(EngineError, match="range_1d"):
        one(body, step=np.zeros(1, np.int32))

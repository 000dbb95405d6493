"""Reductions give what numpy gives in double precision; those of integers exactly."""

from __future__ import annotations

from collections.abc import Callable
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
from torch import Tensor

from phoneward.runtime.engines.mil.numerics import Numerics
from tests.mil_ops import inferred, one, run

relaxed = settings(max_examples=25, deadline=None, derandomize=True)
shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)
Axes = tuple[int, ...] | None

ORACLES: dict[str, Callable[..., Any]] = {
    "reduce_sum": np.sum,
    "reduce_mean": np.mean,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_l1_norm": lambda x, **how: np.sum(np.abs(x), **how),
    "reduce_l2_norm": lambda x, **how: np.sqrt(np.sum(x * x, **how)),
    "reduce_log_sum": lambda x, **how: np.log(np.sum(x, **how)),
    "reduce_log_sum_exp": lambda x, **how: np.log(np.sum(np.exp(x), **how)),
    "reduce_sum_square": lambda x, **how: np.sum(x * x, **how),
}


@st.composite
def axes_of(draw: st.DrawFn, rank: int) -> Axes:
    """Some axes, counted from either end, or None for all."""
    chosen = draw(st.none() | st.sets(st.integers(0, rank - 1), min_size=1))
    if chosen is None:
        return None
    return tuple(axis - rank if draw(st.booleans()) else axis for axis in chosen)


def reduced(name: str, x: NDArray[Any], axes: Axes, keep: bool) -> Tensor:
    given_axes = {} if axes is None else {"axes": axes}
    return one(lambda x: getattr(mb, name)(x=x, keep_dims=keep, **given_axes), x=x)


@pytest.mark.parametrize("name", ORACLES)
@relaxed
@given(data=st.data(), keep=st.booleans())
def test_floats(name: str, data: st.DataObject, keep: bool) -> None:
    low, high = {"reduce_log_sum": (0.125, 8), "reduce_prod": (-1, 1)}.get(name, (-8, 8))
    elements = st.floats(low, high, width=32)
    x = data.draw(hnp.arrays(np.float32, shapes, elements=elements))
    axes = data.draw(axes_of(x.ndim))
    expected = ORACLES[name](x.astype(np.float64), axis=axes, keepdims=keep)
    result = reduced(name, x, axes, keep)
    assert result.shape == expected.shape
    scale = np.abs(x).max() * x.size * 1e-6
    np.testing.assert_allclose(result.numpy(), expected, rtol=2e-5, atol=1e-6 + scale)


INTEGERS = [name for name in ORACLES if "log" not in name]


@pytest.mark.parametrize("name", INTEGERS)
@relaxed
@given(data=st.data(), keep=st.booleans())
def test_integers(name: str, data: st.DataObject, keep: bool) -> None:
    x = data.draw(hnp.arrays(np.int32, shapes, elements=st.integers(-99, 99)))
    axes = data.draw(axes_of(x.ndim))
    exact = ORACLES[name](x.astype(np.int64), axis=axes, keepdims=keep)
    result = reduced(name, x, axes, keep)
    assert result.dtype == torch.int32
    # a mean or a root is cut; a product that is too large wraps
    np.testing.assert_array_equal(result.numpy(), exact.astype(np.int64).astype(np.int32))


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_as_coremltools_computes_it(name: str, dtype: type) -> None:
    x = np.array([[1, 2, 3], [4, 5, 9]], dtype)
    op = getattr(mb, name)
    (expected,) = inferred(lambda: op(x=x, axes=[-1]))
    result = one(lambda x: op(x=x, axes=[-1]), x=x)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)


def test_sums_of_integers_wrap() -> None:
    x = np.array([2**31 - 1, 2], np.int32)
    assert one(lambda x: mb.reduce_sum(x=x), x=x) == -(2**31) + 1
    # and means do not: the sum behind them is exact
    assert one(lambda x: mb.reduce_mean(x=x), x=x) == 2**30


def test_a_mean_of_integers_is_cut_towards_zero() -> None:
    x = np.array([[-1, -2], [1, 2]], np.int32)
    assert one(lambda x: mb.reduce_mean(x=x, axes=[1]), x=x).tolist() == [-1, 1]


def test_log_sum_exp_neither_overflows_nor_loses_what_is_small() -> None:
    x = np.array([[1000, 1000], [-1000, -1000], [-np.inf, 0], [np.inf, 0]], np.float32)
    result = one(lambda x: mb.reduce_log_sum_exp(x=x, axes=[1]), x=x)
    expected = [1000 + np.log(2), -1000 + np.log(2), 0, np.inf]
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["reduce_max", "reduce_min"])
def test_what_is_no_number_wins(name: str) -> None:
    x = np.array([1, np.nan, 3], np.float32)
    assert one(lambda x: getattr(mb, name)(x=x), x=x).isnan()


@pytest.mark.parametrize("name", ["reduce_argmax", "reduce_argmin"])
@relaxed
@given(data=st.data(), keep=st.booleans())
def test_places_of_extremes(name: str, data: st.DataObject, keep: bool) -> None:
    x = data.draw(hnp.arrays(np.int32, shapes, elements=st.integers(-3, 3)))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    result = one(lambda x: getattr(mb, name)(x=x, axis=axis, keep_dims=keep), x=x)
    assert result.dtype == torch.int32
    find = np.argmax if name == "reduce_argmax" else np.argmin
    np.testing.assert_array_equal(result.numpy(), find(x, axis=axis, keepdims=keep))


@pytest.mark.parametrize("target", [ct.target.iOS15, ct.target.iOS17])
def test_places_in_programs_of_each_age(target: Any) -> None:
    x = np.array([[3, 1, 2]], np.float32)
    dtype = {} if target == ct.target.iOS15 else {"output_dtype": "uint16"}
    (result,) = run(lambda x: mb.reduce_argmax(x=x, **dtype), {"x": x}, target)
    assert result.tolist() == [0]


@pytest.mark.parametrize(
    ("name", "declared", "worst"),
    [
        ("reduce_sum", 4096, 2048),
        ("reduce_l1_norm", 4096, 2048),
        ("reduce_sum_square", 4096, 2048),
        ("reduce_mean", 1, 0.5),
        ("reduce_l2_norm", 64, 2048**0.5),
        ("reduce_log_sum", np.log(4096), np.log(2048)),
        ("reduce_log_sum_exp", 1 + np.log(4096), 1 + np.log(2048)),
    ],
)
def test_half_sums_lose_ones_beside_2048(name: str, declared: float, worst: float) -> None:
    x = np.ones((1, 4096), np.float16)
    results = [
        run(lambda x: getattr(mb, name)(x=x, axes=[1]), {"x": x}, numerics=numerics)[0].item()
        for numerics in (Numerics.DECLARED, Numerics.HALF_SUMS)
    ]
    np.testing.assert_allclose(results, [declared, worst], rtol=2e-3)


def test_half_products_are_rounded_at_each_step() -> None:
    x = np.array([300, 300, 2**-10], np.float16)
    declared, worst = (
        run(lambda x: mb.reduce_prod(x=x), {"x": x}, numerics=numerics)[0].item()
        for numerics in (Numerics.DECLARED, Numerics.HALF_SUMS)
    )
    assert declared == float(np.float16(87.890625))
    assert worst == np.inf

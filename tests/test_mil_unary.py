"""Elementwise ops on one value give what numpy gives in double precision."""

from __future__ import annotations

import math
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

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.numerics import Numerics
from phoneward.runtime.engines.mil.ops.unary import cast
from tests.mil_ops import inferred, one, run

relaxed = settings(max_examples=25, deadline=None, derandomize=True)
shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)
WHOLE = st.integers(-(2**31), 2**31 - 1)


def floats(low: float, high: float, dtype: type = np.float32) -> st.SearchStrategy[NDArray[Any]]:
    width = 32 if dtype is np.float32 else 16
    return hnp.arrays(
        dtype, shapes, elements=st.floats(float(dtype(low)), float(dtype(high)), width=width)
    )


def erf(x: NDArray[Any]) -> NDArray[Any]:
    return np.vectorize(math.erf, otypes=[float])(x)


FLOAT_OPS: list[tuple[str, Callable[[NDArray[Any]], NDArray[Any]], float, float]] = [
    ("abs", np.abs, -1e6, 1e6),
    ("acos", np.arccos, -1, 1),
    ("asin", np.arcsin, -1, 1),
    ("atan", np.arctan, -1e6, 1e6),
    ("atanh", np.arctanh, -1, 1),
    ("ceil", np.ceil, -1e6, 1e6),
    ("cos", np.cos, -100, 100),
    ("cosh", np.cosh, -100, 100),
    ("erf", erf, -10, 10),
    ("exp", np.exp, -120, 100),
    ("exp2", np.exp2, -140, 140),
    ("floor", np.floor, -1e6, 1e6),
    ("round", np.round, -1e6, 1e6),
    ("sign", np.sign, -1e6, 1e6),
    ("sin", np.sin, -100, 100),
    ("sinh", np.sinh, -100, 100),
    ("sqrt", np.sqrt, 0, 1e6),
    ("square", np.square, -1e30, 1e30),
    ("tan", np.tan, -1.5, 1.5),
    ("tanh", np.tanh, -100, 100),
]


@pytest.mark.parametrize(("name", "oracle", "low", "high"), FLOAT_OPS, ids=lambda v: str(v)[:8])
def test_a_float_op_gives_what_numpy_gives_in_double_precision(
    name: str, oracle: Callable[[NDArray[Any]], NDArray[Any]], low: float, high: float
) -> None:
    op = getattr(mb, name)

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(floats(low, high))
    def check(x: NDArray[Any]) -> None:
        with np.errstate(all="ignore"):
            expected = oracle(x.astype(np.float64)).astype(np.float32)
        result = one(lambda x: op(x=x), x=x).numpy()
        np.testing.assert_allclose(result, expected, rtol=3e-6, atol=1e-37)

    check()


@pytest.mark.parametrize(("name", "oracle", "low", "high"), FLOAT_OPS, ids=lambda v: str(v)[:8])
def test_halves_come_out_rounded(
    name: str, oracle: Callable[[NDArray[Any]], NDArray[Any]], low: float, high: float
) -> None:
    op = getattr(mb, name)
    x = np.linspace(max(low, -8), min(high, 8), 41).astype(np.float16)
    with np.errstate(all="ignore"):
        expected = oracle(x.astype(np.float64)).astype(np.float16)
    result = one(lambda x: op(x=x), x=x)
    assert torch.equal(result, result.half().float())
    # the last bit may differ where single precision fell on the other side of a half
    np.testing.assert_allclose(result.numpy(), expected.astype(np.float32), rtol=2**-10)


@pytest.mark.parametrize("name", ["acos", "asin", "sqrt", "atanh"])
def test_what_lies_outside_the_domain_is_no_number(name: str) -> None:
    x = np.array([-1.5, np.nan], np.float32)
    assert one(lambda x: getattr(mb, name)(x=x), x=x).isnan().all()


def test_halves_are_rounded_to_the_even_neighbour() -> None:
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    assert one(lambda x: mb.round(x=x), x=x).tolist() == [-2, -2, 0, 0, 2, 2]


@pytest.mark.parametrize("name", ["abs", "sign", "square"])
@relaxed
@given(x=hnp.arrays(np.int32, shapes, elements=WHOLE))
def test_integers_wrap_as_in_numpy(name: str, x: NDArray[np.int32]) -> None:
    result = one(lambda x: getattr(mb, name)(x=x), x=x).numpy()
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, getattr(np, name)(x))


def test_a_power_of_two_of_an_integer_is_one() -> None:
    x = np.arange(-2, 31, dtype=np.int32)
    expected = [int(2.0 ** int(value)) for value in x]
    assert one(lambda x: mb.exp2(x=x), x=x).tolist() == expected


EPSILON_OPS: list[tuple[str, Callable[[NDArray[Any]], NDArray[Any]]]] = [
    ("inverse", np.reciprocal),
    ("log", np.log),
    ("rsqrt", lambda x: 1 / np.sqrt(x)),
]


@pytest.mark.parametrize(("name", "oracle"), EPSILON_OPS, ids=["inverse", "log", "rsqrt"])
@relaxed
@given(x=floats(0, 1e6), epsilon=st.sampled_from([1e-12, 1e-5, 0.1, 1.0]))
def test_epsilon_is_added_first(
    name: str,
    oracle: Callable[[NDArray[Any]], NDArray[Any]],
    x: NDArray[np.float32],
    epsilon: float,
) -> None:
    result = one(lambda x: getattr(mb, name)(x=x, epsilon=np.float32(epsilon)), x=x)
    shifted = (x + np.float32(epsilon)).astype(np.float64)
    np.testing.assert_allclose(result.numpy(), oracle(shifted), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["inverse", "log", "rsqrt"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_epsilon_left_out_is_coremltools_own(name: str, dtype: type) -> None:
    x = np.array([0, 1e-4, 0.5, 2, 1000], dtype)
    op = getattr(mb, name)
    with np.errstate(divide="ignore"):
        (expected,) = inferred(lambda: op(x=x))
    result = one(lambda x: op(x=x), x=x).numpy()
    np.testing.assert_allclose(
        result, expected.astype(np.float32), rtol=2e-3 if dtype is np.float16 else 1e-6
    )


def test_epsilon_of_another_type_than_the_value() -> None:
    x = np.array([0, 1], np.float16)
    result = one(lambda x: mb.log(x=x, epsilon=np.float32(1e-7)), x=x)
    assert result[0] == torch.tensor(math.log(1e-7)).half().float()


@relaxed
@given(x=floats(-10, 10), bounds=st.tuples(st.floats(-5, 0, width=32), st.floats(1, 5, width=32)))
def test_clip(x: NDArray[np.float32], bounds: tuple[float, float]) -> None:
    low, high = (np.float32(bound) for bound in bounds)
    result = one(lambda x: mb.clip(x=x, alpha=low, beta=high), x=x)
    np.testing.assert_array_equal(result.numpy(), np.clip(x, low, high))


def test_the_upper_bound_of_clip_wins() -> None:
    (result,) = run(
        lambda x: mb.clip(x=x, alpha=np.float32(2), beta=np.float32(1)),
        {"x": np.array([0, 1.5, 3], np.float32)},
        ct.target.iOS16,
    )
    assert result.tolist() == [1, 1, 1]


@relaxed
@given(x=floats(-10, 10), alpha=st.floats(-5, 5, width=32))
def test_threshold(x: NDArray[np.float32], alpha: float) -> None:
    result = one(lambda x: mb.threshold(x=x, alpha=np.float32(alpha)), x=x)
    np.testing.assert_array_equal(result.numpy(), np.maximum(x, np.float32(alpha)))


def test_threshold_of_integers() -> None:
    x = np.array([-(2**31), 2**24 + 1, 5], np.int32)
    result = one(lambda x: mb.threshold(x=x, alpha=np.int32(7)), x=x)
    assert result.tolist() == [7, 2**24 + 1, 7]


@relaxed
@given(x=hnp.arrays(np.bool_, shapes))
def test_logical_not(x: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(one(lambda x: mb.logical_not(x=x), x=x).numpy(), ~x)


INTEGERS = {
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "uint16": np.uint16,
    "int32": np.int32,
}


@pytest.mark.parametrize("dtype", INTEGERS)
@relaxed
@given(x=hnp.arrays(np.int32, shapes, elements=WHOLE))
def test_cast_between_integers_wraps(dtype: str, x: NDArray[np.int32]) -> None:
    result = one(lambda x: mb.cast(x=x, dtype=dtype), x=x)
    assert result.dtype == torch.int32
    np.testing.assert_array_equal(result.numpy(), x.astype(INTEGERS[dtype]))


@pytest.mark.parametrize("dtype", INTEGERS)
@relaxed
@given(x=floats(-1e10, 1e10))
def test_cast_of_floats_cuts_the_fraction_and_stays_in_range(
    dtype: str, x: NDArray[np.float32]
) -> None:
    limits = np.iinfo(INTEGERS[dtype])
    expected = np.clip(np.trunc(x.astype(np.float64)), limits.min, limits.max)
    result = one(lambda x: mb.cast(x=x, dtype=dtype), x=x)
    np.testing.assert_array_equal(result.numpy(), expected.astype(np.int64))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_cast_of_floats_in_range_is_coremltools_own(dtype: str) -> None:
    x = np.array([0, 0.99, 1.5, 2.5, 100.9, 127.0], np.float32)
    (expected,) = inferred(lambda: mb.cast(x=x, dtype=dtype))
    assert one(lambda x: mb.cast(x=x, dtype=dtype), x=x).tolist() == expected.tolist()


def test_cast_of_what_is_no_integer() -> None:
    x = np.array([np.nan, np.inf, -np.inf, -1.9], np.float32)
    result = one(lambda x: mb.cast(x=x, dtype="int32"), x=x)
    assert result.tolist() == [0, 2**31 - 1, -(2**31), -1]


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.bool_])
def test_cast_to_bool_asks_whether_it_is_zero(dtype: type) -> None:
    x = np.array([0, 1, -3, 0.25, -0.0]).astype(dtype)
    result = one(lambda x: mb.cast(x=x, dtype="bool"), x=x)
    assert result.tolist() == (x != 0).tolist()


def test_cast_to_half_rounds_unless_told_otherwise() -> None:
    x = np.array([1 + 2**-11 + 2**-20, 70000, -1e-9], np.float32)
    arrays = {"x": x}
    (declared,) = run(lambda x: mb.cast(x=x, dtype="fp16"), arrays)
    with np.errstate(over="ignore"):
        assert declared.tolist() == x.astype(np.float16).astype(np.float32).tolist()
    (exact,) = run(lambda x: mb.cast(x=x, dtype="fp16"), arrays, numerics=Numerics.FLOAT32)
    assert exact.tolist() == x.tolist()


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "int32"])
def test_cast_of_bool_gives_zero_and_one(dtype: str) -> None:
    x = np.array([True, False])
    assert one(lambda x: mb.cast(x=x, dtype=dtype), x=x).tolist() == [1, 0]


def test_cast_to_an_unknown_type_names_it() -> None:
    with pytest.raises(ValueError, match="bf16"):
        cast(torch.zeros(1), "bf16")


def test_an_op_that_fails_is_named() -> None:
    x = np.array([1, 2], np.int32)
    with pytest.raises(EngineError, match=r"floor_div"):
        one(lambda x, y: mb.floor_div(x=x, y=y), x=x, y=np.zeros(2, np.int32))

"""Elementwise ops on two values give what numpy gives, integers and broadcasting included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from phoneward.errors import EngineError
from tests.mil_ops import inferred, one

relaxed = settings(max_examples=25, deadline=None, derandomize=True)
pairs = hnp.mutually_broadcastable_shapes(num_shapes=2, min_dims=1, max_dims=4, max_side=4)
FLOATS = st.floats(-1e4, 1e4, width=32)
WHOLE = st.integers(-(2**31), 2**31 - 1) | st.integers(-9, 9)
Arrays = tuple[NDArray[Any], NDArray[Any]]


@st.composite
def arrays(draw: st.DrawFn, dtype: Any, elements: Any, divisors: Any = None) -> Arrays:
    """Two arrays that broadcast; the second of `divisors` if these differ."""
    first, second = draw(pairs).input_shapes
    x = draw(hnp.arrays(dtype, first, elements=elements))
    y = draw(hnp.arrays(dtype, second, elements=elements if divisors is None else divisors))
    return x, y


def computed(name: str, x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    return one(lambda x, y: getattr(mb, name)(x=x, y=y), x=x, y=y).numpy()


ANY: list[tuple[str, Callable[..., Any]]] = [
    ("add", np.add),
    ("sub", np.subtract),
    ("mul", np.multiply),
    ("maximum", np.maximum),
    ("minimum", np.minimum),
    ("equal", np.equal),
    ("not_equal", np.not_equal),
    ("greater", np.greater),
    ("greater_equal", np.greater_equal),
    ("less", np.less),
    ("less_equal", np.less_equal),
]


@pytest.mark.parametrize(("name", "oracle"), ANY, ids=[name for name, _ in ANY])
@relaxed
@given(values=arrays(np.float32, FLOATS))
def test_floats(name: str, oracle: Callable[..., Any], values: Arrays) -> None:
    np.testing.assert_array_equal(computed(name, *values), oracle(*values))


@pytest.mark.parametrize(("name", "oracle"), ANY, ids=[name for name, _ in ANY])
@relaxed
@given(values=arrays(np.int32, WHOLE))
def test_integers_wrap(name: str, oracle: Callable[..., Any], values: Arrays) -> None:
    result = computed(name, *values)
    expected = oracle(*values)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "real_div"])
@relaxed
@given(values=arrays(np.float16, st.floats(-300, 300, width=16), st.floats(1, 300, width=16)))
def test_halves_are_rounded_once(name: str, values: Arrays) -> None:
    x, y = values
    operator = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "real_div": np.divide}[name]
    with np.errstate(over="ignore"):
        # numpy's own half arithmetic computes in float32 and rounds
        expected = operator(x, y).astype(np.float32)
    np.testing.assert_array_equal(computed(name, x, y), expected)


LOGICAL = [(name, getattr(np, name)) for name in ("logical_and", "logical_or", "logical_xor")]


@pytest.mark.parametrize(("name", "oracle"), LOGICAL, ids=["and", "or", "xor"])
@relaxed
@given(values=arrays(np.bool_, st.booleans()))
def test_logic(name: str, oracle: Callable[..., Any], values: Arrays) -> None:
    np.testing.assert_array_equal(computed(name, *values), oracle(*values))


@pytest.mark.parametrize("name", ["real_div", "floor_div", "mod"])
@relaxed
@given(values=arrays(np.float32, FLOATS, st.sampled_from([0.5, 3.0, -7.0, 0.125, -2.5])))
def test_division_of_floats(name: str, values: Arrays) -> None:
    x, y = values
    exact = {"real_div": np.divide, "floor_div": np.floor_divide, "mod": np.mod}[name]
    np.testing.assert_allclose(computed(name, x, y), exact(x, y), rtol=1e-6, atol=1e-3)


DIVIDING = WHOLE.filter(lambda value: value != 0)


@relaxed
@given(values=arrays(np.int32, WHOLE, DIVIDING))
def test_division_of_integers_floors_and_the_rest_has_the_divisors_sign(values: Arrays) -> None:
    x, y = (value.astype(np.int64) for value in values)
    np.testing.assert_array_equal(computed("floor_div", *values), (x // y).astype(np.int32))
    np.testing.assert_array_equal(computed("mod", *values), x % y)


@relaxed
@given(values=arrays(np.int32, WHOLE, DIVIDING))
def test_a_quotient_of_integers_is_cut(values: Arrays) -> None:
    x, y = values
    result = computed("real_div", x, y)
    assert result.dtype == np.int32
    both = np.frompyfunc(lambda a, b: (int(a), int(b)), 2, 1)(x, y)
    cut = [abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) for a, b in both.flat]
    expected = np.array(cut, object).reshape(both.shape).astype(np.int64).astype(np.int32)
    np.testing.assert_array_equal(result, expected)


def test_the_one_quotient_that_does_not_fit_wraps() -> None:
    x, y = np.array([-(2**31)], np.int32), np.array([-1], np.int32)
    for name in ("real_div", "floor_div"):
        assert computed(name, x, y).tolist() == [-(2**31)]
    assert computed("mod", x, y).tolist() == [0]


@pytest.mark.parametrize("name", ["real_div", "floor_div", "mod"])
def test_integers_over_zero_are_an_error(name: str) -> None:
    with pytest.raises(EngineError, match=name):
        computed(name, np.ones(2, np.int32), np.zeros(2, np.int32))


def test_floats_over_zero_follow_the_standard() -> None:
    x, y = np.array([1, -1, 0], np.float32), np.zeros(3, np.float32)
    result = computed("real_div", x, y)
    assert result[:2].tolist() == [np.inf, -np.inf]
    assert np.isnan(result[2])


@relaxed
@given(values=arrays(np.float32, st.floats(2**-6, 20, width=32), st.floats(-5, 5, width=32)))
def test_powers_of_floats(values: Arrays) -> None:
    x, y = values
    expected = np.power(x.astype(np.float64), y)
    np.testing.assert_allclose(computed("pow", x, y), expected, rtol=1e-5)


def test_powers_of_negative_floats_and_zeros() -> None:
    x = np.array([-2, -2, 0, 0, -8, 0], np.float32)
    y = np.array([3, -1, 0, 2, 1 / 3, -1], np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(computed("pow", x, y), np.power(x, y))


@relaxed
@given(values=arrays(np.int32, st.integers(-50, 50), st.integers(0, 9)))
def test_powers_of_integers_wrap(values: Arrays) -> None:
    np.testing.assert_array_equal(computed("pow", *values), np.power(*values))


def test_powers_of_integers_below_one_are_cut() -> None:
    x, y = np.array([2, 1, -1, -1], np.int32), np.array([-1, -5, -3, -2], np.int32)
    assert computed("pow", x, y).tolist() == [0, 1, -1, 1]


@pytest.mark.parametrize("name", ["add", "sub", "mul", "floor_div", "mod", "pow", "maximum"])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_as_coremltools_computes_it(name: str, dtype: type) -> None:
    x, y = np.array([[7, -7, 7, -7]], dtype), np.array([[2], [3]], dtype)
    (expected,) = inferred(lambda: getattr(mb, name)(x=x, y=y))
    np.testing.assert_array_equal(computed(name, x, y), expected)


def test_what_is_no_number_stays_so() -> None:
    x, y = np.array([np.nan, 1], np.float32), np.array([1, np.nan], np.float32)
    for name in ("maximum", "minimum"):
        assert np.isnan(computed(name, x, y)).all()


@relaxed
@given(values=arrays(np.float32, FLOATS), seed=st.integers(0, 2**31))
def test_select(values: Arrays, seed: int) -> None:
    a, b = values
    generator = np.random.default_rng(seed)
    # coremltools holds that the condition adds no size of its own
    shape = [size if generator.random() < 0.7 else 1 for size in np.broadcast(a, b).shape]
    cond = generator.random(shape) < 0.5
    result = one(lambda c, a, b: mb.select(cond=c, a=a, b=b), c=cond, a=a, b=b)
    np.testing.assert_array_equal(result.numpy(), np.where(cond, a, b))


def test_select_does_not_let_the_other_value_through() -> None:
    cond = np.array([True, False])
    a, b = np.array([1, np.nan], np.float32), np.array([np.inf, 2], np.float32)
    result = one(lambda c, a, b: mb.select(cond=c, a=a, b=b), c=cond, a=a, b=b)
    assert torch.equal(result, torch.tensor([1.0, 2.0]))

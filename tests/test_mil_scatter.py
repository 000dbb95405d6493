"""Gathers and scatters: against coremltools' own values, and numpy written out."""

from __future__ import annotations

from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.numerics import Numerics
from tests.mil_ops import inferred, one, run

relaxed = settings(max_examples=30, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4)
TARGETS = (ct.target.iOS15, ct.target.iOS16, ct.target.iOS18)
targets = st.sampled_from(TARGETS)
modes = st.sampled_from(["update", "add", "sub", "mul", "div", "max", "min"])

STEPS = {
    "update": lambda old, new: new,
    "add": lambda old, new: old + new,
    "sub": lambda old, new: old - new,
    "mul": lambda old, new: old * new,
    "div": lambda old, new: old / new,
    "max": max,
    "min": min,
}


def lowest(target: Any, size: int) -> int:
    """The lowest index that the version of an op takes."""
    return 0 if target >= ct.target.iOS17 else -size


def numbers(rng: np.random.Generator, shape: Any) -> NDArray[np.float32]:
    # of few bits, so that no order of sums or products rounds
    return (rng.integers(1, 9, shape) * rng.choice([-1, 1], shape)).astype(np.float32)


@relaxed
@given(seed=seeds, shape=shapes, count=st.lists(st.integers(1, 3), max_size=2), target=targets)
def test_gather(seed: int, shape: list[int], count: list[int], target: Any) -> None:
    rng = np.random.default_rng(seed)
    axis = int(rng.integers(-len(shape), len(shape)))
    x = numbers(rng, shape)
    indices = rng.integers(lowest(target, x.shape[axis]), x.shape[axis], count).astype(np.int32)
    if count:
        (result,) = run(
            lambda x, indices: mb.gather(x=x, indices=indices, axis=axis),
            {"x": x, "indices": indices},
            target,
        )
    else:  # a program has no inputs of rank 0
        (result,) = run(lambda x: mb.gather(x=x, indices=indices[()], axis=axis), {"x": x}, target)
    np.testing.assert_array_equal(result.numpy(), np.take(x, indices, axis))
    (known,) = inferred(lambda: mb.gather(x=x, indices=indices, axis=axis), target)
    np.testing.assert_array_equal(result.numpy(), known)


@relaxed
@given(seed=seeds, batches=st.integers(1, 2), tail=st.lists(st.integers(1, 3), max_size=2))
def test_gather_of_batches(seed: int, batches: int, tail: list[int]) -> None:
    rng = np.random.default_rng(seed)
    lead = rng.integers(1, 4, batches).tolist()
    x = numbers(rng, [*lead, *rng.integers(1, 4, 2).tolist()])
    axis = int(rng.integers(batches, x.ndim))
    indices = rng.integers(0, x.shape[axis], [*lead, *tail]).astype(np.int32)
    result = one(
        lambda x, indices: mb.gather(x=x, indices=indices, axis=axis, batch_dims=batches),
        x=x,
        indices=indices,
    )
    expected = np.stack(
        [np.take(x[at], indices[at], axis - batches) for at in np.ndindex(*lead)]
    ).reshape(tuple(result.shape))
    np.testing.assert_array_equal(result.numpy(), expected)
    (known,) = inferred(lambda: mb.gather(x=x, indices=indices, axis=axis, batch_dims=batches))
    np.testing.assert_array_equal(result.numpy(), known)


@relaxed
@given(seed=seeds, shape=shapes, count=st.integers(1, 5), target=targets)
def test_gather_along_axis(seed: int, shape: list[int], count: int, target: Any) -> None:
    rng = np.random.default_rng(seed)
    axis = int(rng.integers(-len(shape), len(shape)))
    x = numbers(rng, shape)
    wanted = list(shape)
    wanted[axis] = count
    indices = rng.integers(lowest(target, shape[axis]), shape[axis], wanted).astype(np.int32)
    (result,) = run(
        lambda x, indices: mb.gather_along_axis(x=x, indices=indices, axis=axis),
        {"x": x, "indices": indices},
        target,
    )
    np.testing.assert_array_equal(result.numpy(), np.take_along_axis(x, indices, axis))


@relaxed
@given(seed=seeds, batches=st.integers(0, 2), depth=st.integers(1, 2), rest=st.integers(0, 1))
def test_gather_nd(seed: int, batches: int, depth: int, rest: int) -> None:
    rng = np.random.default_rng(seed)
    lead = rng.integers(1, 4, batches).tolist()
    inner = rng.integers(1, 4, depth).tolist()
    x = numbers(rng, [*lead, *inner, *rng.integers(1, 4, rest).tolist()])
    outer = [*lead, 2]
    indices = np.stack([rng.integers(0, size, outer) for size in inner], -1).astype(np.int32)
    result = one(
        lambda x, indices: mb.gather_nd(x=x, indices=indices, batch_dims=batches),
        x=x,
        indices=indices,
    )
    for at in np.ndindex(*outer):
        place = (*at[:batches], *indices[at])
        np.testing.assert_array_equal(result.numpy()[at], x[place])


def test_gather_nd_counts_negative_indices_from_the_end_before_ios_17() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    indices = np.array([[-1, -3]], np.int32)
    (result,) = run(
        lambda x, indices: mb.gather_nd(x=x, indices=indices),
        {"x": x, "indices": indices},
        ct.target.iOS16,
    )
    assert result.tolist() == [3]


@relaxed
@given(seed=seeds, shape=shapes, count=st.integers(1, 5), mode=modes, target=targets)
def test_scatter(seed: int, shape: list[int], count: int, mode: str, target: Any) -> None:
    rng = np.random.default_rng(seed)
    axis = int(rng.integers(-len(shape), len(shape)))
    data = numbers(rng, shape)
    indices = rng.integers(lowest(target, shape[axis]), shape[axis], count).astype(np.int32)
    wide = list(shape)
    wide[axis] = count
    updates = numbers(rng, wide)
    (result,) = run(
        lambda data, indices, updates: mb.scatter(
            data=data, indices=indices, updates=updates, axis=axis, mode=mode
        ),
        {"data": data, "indices": indices, "updates": updates},
        target,
    )
    expected = data.copy()
    for at in np.ndindex(*wide):
        place = list(at)
        place[axis] = indices[at[axis]]
        there = tuple(place)
        expected[there] = STEPS[mode](expected[there], updates[at])
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)


@relaxed
@given(seed=seeds, shape=shapes, count=st.integers(1, 5), mode=modes, target=targets)
def test_scatter_along_axis(
    seed: int, shape: list[int], count: int, mode: str, target: Any
) -> None:
    rng = np.random.default_rng(seed)
    axis = int(rng.integers(-len(shape), len(shape)))
    data = numbers(rng, shape)
    wide = list(shape)
    wide[axis] = count
    indices = rng.integers(lowest(target, shape[axis]), shape[axis], wide).astype(np.int32)
    updates = numbers(rng, wide)
    (result,) = run(
        lambda data, indices, updates: mb.scatter_along_axis(
            data=data, indices=indices, updates=updates, axis=axis, mode=mode
        ),
        {"data": data, "indices": indices, "updates": updates},
        target,
    )
    expected = data.copy()
    for at in np.ndindex(*wide):
        place = list(at)
        place[axis] = indices[at]
        there = tuple(place)
        expected[there] = STEPS[mode](expected[there], updates[at])
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)
    if mode == "update":
        (known,) = inferred(
            lambda: mb.scatter_along_axis(
                data=data, indices=indices, updates=updates, axis=axis, mode=mode
            ),
            target,
        )
        np.testing.assert_array_equal(result.numpy(), known)


@relaxed
@given(seed=seeds, depth=st.integers(1, 2), rest=st.integers(0, 1), mode=modes)
def test_scatter_nd(seed: int, depth: int, rest: int, mode: str) -> None:
    rng = np.random.default_rng(seed)
    inner = rng.integers(1, 4, depth).tolist()
    data = numbers(rng, [*inner, *rng.integers(1, 4, rest).tolist()])
    outer = (2, 2)
    indices = np.stack([rng.integers(0, size, outer) for size in inner], -1).astype(np.int32)
    updates = numbers(rng, (*outer, *data.shape[depth:]))
    result = one(
        lambda data, indices, updates: mb.scatter_nd(
            data=data, indices=indices, updates=updates, mode=mode
        ),
        data=data,
        indices=indices,
        updates=updates,
    )
    expected = data.copy()
    for at in np.ndindex(*outer):
        for tail in np.ndindex(*data.shape[depth:]):
            there = (*indices[at], *tail)
            expected[there] = STEPS[mode](expected[there], updates[(*at, *tail)])
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)


def test_whole_numbers_scatter_as_such() -> None:
    data = np.array([2**24 + 1, 5], np.int32)
    result = one(
        lambda data: mb.scatter(data=data, indices=np.array([1, 1]), updates=data, axis=0),
        data=data,
    )
    assert result.tolist() == [2**24 + 1, 2**24 + 11]
    with pytest.raises(EngineError, match="'div' of whole numbers"):
        one(lambda data: mb.scatter(data=data, indices=[0, 1], updates=data, mode="div"), data=data)


def test_sums_of_half_values_round_at_every_step_if_asked() -> None:
    data = np.array([2048], np.float16)
    updates = np.ones(4, np.float16)

    def body(data: Any, updates: Any) -> Any:
        return mb.scatter(data=data, indices=np.zeros(4, np.int32), updates=updates, mode="add")

    arrays = {"data": data, "updates": updates}
    assert run(body, arrays)[0].tolist() == [2052]
    assert run(body, arrays, numerics=Numerics.HALF_SUMS)[0].tolist() == [2048]


OUTSIDE: dict[str, Any] = {
    "gather": lambda x, i: mb.gather(x=x, indices=i, axis=0),
    "gather_along_axis": lambda x, i: mb.gather_along_axis(x=x, indices=i, axis=0),
    "gather_nd": lambda x, i: mb.gather_nd(x=x, indices=mb.expand_dims(x=i, axes=[1])),
    "scatter": lambda x, i: mb.scatter(data=x, indices=i, updates=i, axis=0),
    "scatter_along_axis": lambda x, i: mb.scatter_along_axis(data=x, indices=i, updates=i, axis=0),
}


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize(
    ("index", "target"),
    [(3, ct.target.iOS15), (-4, ct.target.iOS15), (3, ct.target.iOS17), (-1, ct.target.iOS17)],
)
def test_an_index_out_of_range_is_refused(name: str, index: int, target: Any) -> None:
    arrays = {"x": np.arange(3, dtype=np.int32), "i": np.full(3, index, np.int32)}
    with pytest.raises(EngineError, match="out of range for 3"):
        run(OUTSIDE[name], arrays, target)

"""Branches, loops, lists, states, labels and random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil.operation import mil_list
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.ops.control import coreml_update_state, read_state
from phoneward.runtime.engines.mil.signature import State
from tests.mil_ops import build, compute, one, run

relaxed = settings(max_examples=25, deadline=None, derandomize=True)
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("chosen", [True, False])
def test_cond_runs_one_branch_on_values_from_outside(chosen: bool) -> None:
    def body(x: Any, pred: Any) -> Any:
        twice = mb.add(x=x, y=x)
        return mb.cond(
            pred=mb.squeeze(x=pred),
            _true_fn=lambda: (mb.add(x=twice, y=1.0), x),
            _false_fn=lambda: (mb.mul(x=twice, y=3.0), twice),
        )

    first, second = run(body, {"x": X, "pred": np.array([chosen])})
    np.testing.assert_array_equal(first.numpy(), 2 * X + 1 if chosen else 6 * X)
    np.testing.assert_array_equal(second.numpy(), X if chosen else 2 * X)


@relaxed
@given(rounds=st.integers(0, 6), inner=st.integers(0, 3))
def test_loops_in_loops(rounds: int, inner: int) -> None:
    def add_often(total: Any, x: Any) -> Any:
        return mb.while_loop(
            _cond=lambda j, t: mb.less(x=j, y=inner),
            _body=lambda j, t: (mb.add(x=j, y=1), mb.add(x=t, y=x)),
            loop_vars=(0, total),
        )[1]

    def body(x: Any) -> Any:
        return mb.while_loop(
            _cond=lambda i, t: mb.less(x=i, y=rounds),
            _body=lambda i, t: (mb.add(x=i, y=1), add_often(mb.mul(x=t, y=2.0), x)),
            loop_vars=(0, x),
        )

    count, total = run(body, {"x": X})
    expected = X.copy()
    for _ in range(rounds):
        expected = expected * 2 + inner * X
    assert int(count) == rounds
    np.testing.assert_array_equal(total.numpy(), expected)


def test_values_of_a_block_may_be_called_as_those_around_it() -> None:
    def body(x: Any) -> Any:
        return mb.while_loop(
            _cond=lambda i, total: mb.less(x=i, y=3),
            _body=lambda i, total: (mb.add(x=i, y=1), mb.add(x=total, y=x)),
            loop_vars=(mb.const(val=np.int32(1), name="first"), mb.mul(x=x, y=x)),
        )

    program = build(body, {"x": X})
    main = program.functions["main"]
    (loop,) = main.find_ops(op_type="while_loop")
    for block in loop.blocks:
        block.inputs[0].name, block.inputs[1].name = "first", "x"
    count, total = compute(program, {"x": X})
    assert int(count) == 3
    np.testing.assert_allclose(total.numpy(), X * X + 2 * X, rtol=1e-6)


def test_a_choice_needs_a_single_value() -> None:
    def branch(x: Any, pred: Any) -> Any:
        return mb.cond(pred=pred, _true_fn=lambda: mb.add(x=x, y=x), _false_fn=lambda: mb.exp(x=x))

    def loop(x: Any, pred: Any) -> Any:
        return mb.while_loop(_cond=lambda t: pred, _body=lambda t: mb.add(x=t, y=x), loop_vars=(x,))

    arrays = {"x": X, "pred": np.array([False, True])}
    with pytest.raises(EngineError, match=r"\(cond\) failed: a single value .* not 2"):
        run(branch, arrays)
    with pytest.raises(EngineError, match=r"\(while_loop\) failed: a condition of shape \(2,\)"):
        run(loop, arrays)


def test_a_loop_fills_a_list() -> None:
    def body(x: Any) -> Any:
        items = mb.make_list(init_length=1, dynamic_length=True, elem_shape=(2, 3))
        _, filled = mb.while_loop(
            _cond=lambda i, ls: mb.less(x=i, y=4),
            _body=lambda i, ls: (
                mb.add(x=i, y=1),
                mb.list_write(ls=ls, index=i, value=mb.mul(x=x, y=mb.cast(x=i, dtype="fp32"))),
            ),
            loop_vars=(0, items),
        )
        return mb.list_length(ls=filled), mb.list_gather(ls=filled, indices=[3, 0, 2])

    length, rows = run(body, {"x": X})
    assert int(length) == 4
    np.testing.assert_array_equal(rows.numpy(), np.stack([3 * X, 0 * X, 2 * X]))


def test_lists_grow_with_zeros_and_do_not_share_their_elements() -> None:
    def body(x: Any) -> Any:
        empty = mb.make_list(init_length=2, dynamic_length=True, elem_shape=(2, 3), dtype="fp32")
        written = mb.list_write(ls=empty, index=4, value=x)
        doubled = mb.expand_dims(x=mb.add(x=x, y=x), axes=[0])
        more = mb.list_scatter(ls=written, indices=[1], value=doubled)
        return (
            mb.list_length(ls=empty),
            mb.list_length(ls=more),
            mb.list_gather(ls=more, indices=[0, 1, 2, 3, 4]),
            mb.list_read(ls=written, index=1),
        )

    before, after, rows, unwritten = run(body, {"x": X})
    assert (int(before), int(after)) == (2, 5)
    np.testing.assert_array_equal(rows.numpy(), np.stack([0 * X, 2 * X, 0 * X, 0 * X, X]))
    np.testing.assert_array_equal(unwritten.numpy(), 0 * X)


@pytest.mark.parametrize(("dynamic", "index"), [(False, 2), (True, -1), (False, -1)])
def test_a_list_refuses_what_lies_outside(dynamic: bool, index: int) -> None:
    def body(x: Any) -> Any:
        items = mb.make_list(init_length=2, dynamic_length=dynamic, elem_shape=(2, 3))
        return mb.list_read(ls=mb.list_write(ls=items, index=index, value=x), index=0)

    with pytest.raises(EngineError, match=f"element {index} of a list of 2"):
        run(body, {"x": X})


def test_an_element_of_open_shape_is_nothing_until_it_is_written() -> None:
    def body(x: Any, at: int) -> Any:
        items = mb.make_list(init_length=2, dynamic_length=True, elem_shape=("rows", 3))
        return mb.list_read(ls=mb.list_write(ls=items, index=1, value=x), index=at)

    np.testing.assert_array_equal(one(lambda x: body(x, 1), x=X).numpy(), X)
    with pytest.raises(EngineError, match="read before it is written"):
        run(lambda x: body(x, 0), {"x": X})


def test_a_state_holds_what_was_written_last() -> None:
    state = State(torch.zeros(3))
    before = read_state(state)
    assert coreml_update_state(state, torch.ones(3)).tolist() == [1, 1, 1]
    assert (before.tolist(), read_state(state).tolist()) == ([0, 0, 0], [1, 1, 1])


def test_labels_as_texts_and_as_numbers() -> None:
    scores = np.array([[0.1, 0.4, 0.4, 0.1]], np.float32)
    for labels, plain in (
        (["cat", "dog", "owl", "bee"], ["cat", "dog", "owl", "bee"]),
        ([np.int64(value) for value in (7, 2**40, 9, -1)], [7, 2**40, 9, -1]),
    ):
        top, every = run(
            lambda x, labels=labels: mb.classify(
                probabilities=x, classes=mb.const(val=mil_list(labels))
            ),
            {"x": scores},
        )
        assert top == plain[1]
        assert every == dict(zip(plain, scores[0].tolist(), strict=True))


def drawn(body: Any) -> Tensor:
    return one(lambda x: body(), x=X)


MANY = [200, 250]
SEEDED: dict[str, Any] = {
    "bernoulli": lambda seed: mb.random_bernoulli(shape=MANY, prob=0.3, seed=seed),
    "normal": lambda seed: mb.random_normal(shape=MANY, mean=2.0, stddev=3.0, seed=seed),
    "uniform": lambda seed: mb.random_uniform(shape=MANY, low=-1.0, high=3.0, seed=seed),
    "categorical": lambda seed: mb.random_categorical(
        x=np.log(np.array([[0.1, 0.6, 0.3]], np.float32)), size=50000, seed=seed
    ),
}
# mean and standard deviation of each
MOMENTS = {
    "bernoulli": (0.3, 0.21**0.5),
    "normal": (2.0, 3.0),
    "uniform": (1.0, 4 / 12**0.5),
    "categorical": (1.2, 0.36**0.5),
}


@pytest.mark.parametrize("name", SEEDED)
def test_a_seed_repeats_its_numbers_and_none_does_not(name: str) -> None:
    first, again = drawn(lambda: SEEDED[name](5)), drawn(lambda: SEEDED[name](5))
    assert torch.equal(first, again)
    assert not torch.equal(first, drawn(lambda: SEEDED[name](6)))
    assert not torch.equal(drawn(lambda: SEEDED[name](-1)), drawn(lambda: SEEDED[name](-1)))
    mean, deviation = MOMENTS[name]
    assert float(first.mean()) == pytest.approx(mean, abs=0.05)
    assert float(first.std()) == pytest.approx(deviation, rel=0.02)


def test_the_range_and_the_values_of_random_numbers() -> None:
    assert set(drawn(lambda: SEEDED["bernoulli"](1)).unique().tolist()) == {0.0, 1.0}
    uniform = drawn(lambda: SEEDED["uniform"](1))
    assert float(uniform.min()) >= -1
    assert float(uniform.max()) < 3


def test_categories_of_probabilities_one_row_each() -> None:
    rows = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], np.float32)
    picked = one(lambda x: mb.random_categorical(x=x, mode="probs", size=9, seed=3), x=rows)
    assert picked.tolist() == [[1.0] * 9, [2.0] * 9]

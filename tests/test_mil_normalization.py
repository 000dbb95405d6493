"""Normalisations give what PyTorch and coremltools give, and their sums round where asked to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.numerics import Numerics
from tests.mil_ops import inferred, one, run

relaxed = settings(max_examples=30, deadline=None, derandomize=True)
shapes = st.lists(st.integers(1, 5), min_size=3, max_size=5)
epsilons = st.sampled_from([1e-5, 1e-3, 0.5])
Arrays = NDArray[Any]


def normal(*shape: int) -> Arrays:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def close(result: Tensor, right: Any) -> None:
    np.testing.assert_allclose(result, np.asarray(right), rtol=1e-4, atol=1e-5)


@relaxed
@given(shape=shapes, scaled=st.booleans(), epsilon=epsilons)
def test_batch_norm(shape: list[int], scaled: bool, epsilon: float) -> None:
    channels = shape[1]
    x, mean, variance = normal(*shape), normal(channels), normal(channels) ** 2
    rest = {"gamma": normal(channels) + 2, "beta": normal(channels)} if scaled else {}
    result = one(
        lambda x: mb.batch_norm(x=x, mean=mean, variance=variance, epsilon=epsilon, **rest), x=x
    )
    column = (-1, *(1,) * (len(shape) - 2))
    right = (x - mean.reshape(column)) / np.sqrt(variance.reshape(column) + epsilon)
    if scaled:
        right = right * rest["gamma"].reshape(column) + rest["beta"].reshape(column)
    close(result, right)


@relaxed
@given(shape=shapes.filter(lambda shape: len(shape) < 5), scaled=st.booleans(), epsilon=epsilons)
def test_instance_norm(shape: list[int], scaled: bool, epsilon: float) -> None:
    # PyTorch refuses to normalise a single value
    shape[-1] += 1
    x, channels = normal(*shape), shape[1]
    rest = {"gamma": normal(channels), "beta": normal(channels)} if scaled else {}
    result = one(lambda x: mb.instance_norm(x=x, epsilon=epsilon, **rest), x=x)
    weights = [torch.from_numpy(value) for value in rest.values()] or [None, None]
    close(result, F.instance_norm(torch.from_numpy(x), None, None, *weights, eps=epsilon))


@relaxed
@given(data=st.data(), shape=shapes, epsilon=epsilons)
def test_layer_norm(data: st.DataObject, shape: list[int], epsilon: float) -> None:
    rank = len(shape)
    axes = sorted(data.draw(st.sets(st.integers(0, rank - 1), min_size=1)))
    x, inner = normal(*shape), [shape[axis] for axis in axes]
    options: dict[str, Any] = {"axes": [axis - rank * (axis % 2) for axis in axes]}
    if data.draw(st.booleans()):
        options["gamma"] = normal(*inner)
        if data.draw(st.booleans()):
            options["beta"] = normal(*inner) * 2
    result = one(lambda x: mb.layer_norm(x=x, epsilon=epsilon, **options), x=x)
    wide = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    mean = x.mean(tuple(axes), keepdims=True)
    right = (x - mean) / np.sqrt(x.var(tuple(axes), keepdims=True) + epsilon)
    right = right * np.reshape(options.get("gamma", np.ones(inner)), wide)
    close(result, right + np.reshape(options.get("beta", np.zeros(inner)), wide))
    (folded,) = inferred(lambda: mb.layer_norm(x=x, epsilon=epsilon, **options))
    close(result, folded)


@relaxed
@given(shape=shapes, epsilon=epsilons)
def test_l2_norm(shape: list[int], epsilon: float) -> None:
    x = normal(*shape)
    result = one(lambda x: mb.l2_norm(x=x, epsilon=epsilon), x=x)
    close(result, x / np.sqrt((x**2).sum((-3, -2, -1), keepdims=True) + epsilon))
    (folded,) = inferred(lambda: mb.l2_norm(x=x, epsilon=epsilon))
    close(result, folded)


@relaxed
@given(
    shape=shapes.filter(lambda shape: len(shape) == 4),
    size=st.integers(1, 6),
    alpha=st.sampled_from([1e-4, 0.1, 2.0]),
    beta=st.sampled_from([0.75, 1.0, 0.0]),
    k=st.sampled_from([1.0, 2.0]),
)
def test_local_response_norm(
    shape: list[int], size: int, alpha: float, beta: float, k: float
) -> None:
    x = normal(*shape)
    options = {"size": size, "alpha": alpha, "beta": beta, "k": k}
    result = one(lambda x: mb.local_response_norm(x=x, **options), x=x)
    close(result, F.local_response_norm(torch.from_numpy(x), size, alpha, beta, k))


def test_local_response_norm_of_rank_3() -> None:
    # coremltools' own test, which runs on Apple's machines: the first axis has the channels
    x = np.array([[[1, -7], [5, -6], [-3, -5]]], np.float32)
    right = [[[0.99996257, -6.98716545], [4.99531746, -5.99191284], [-2.99898791, -4.99531746]]]
    close(one(lambda x: mb.local_response_norm(x=x, size=2), x=x), right)
    right = [[[0.99997497, -6.99143696], [4.99687672, -5.99460602], [-2.99932504, -4.99687672]]]
    close(one(lambda x: mb.local_response_norm(x=x, size=3), x=x), right)
    with pytest.raises(EngineError, match="rank 5"):
        one(lambda x: mb.local_response_norm(x=x, size=3), x=normal(1, 1, 1, 1, 1))


def one_by_one(x: Arrays) -> Arrays:
    """Sum over the last axis, rounded to half precision after every value."""
    total = np.zeros((*x.shape[:-1], 1), np.float16)
    for at in range(x.shape[-1]):
        total = total + x[..., at : at + 1]
    return total


def test_layer_norm_of_half_sums() -> None:
    x = (normal(3, 4, 100) * 3 + 2).astype(np.float16)
    body = lambda x: mb.layer_norm(x=x, axes=[-1], epsilon=np.float16(1e-3))  # noqa: E731
    (result,) = run(body, {"x": x}, numerics=Numerics.HALF_SUMS)
    apart = x - one_by_one(x) / np.float16(100)
    variance = one_by_one(apart * apart) / np.float16(100)
    right = apart.astype(np.float32) / np.sqrt(variance.astype(np.float32) + np.float16(1e-3))
    np.testing.assert_array_equal(result, right.astype(np.float16).astype(np.float32))
    (exact,) = run(body, {"x": x})
    assert 0 < (result - exact).abs().max() < 0.05


@pytest.mark.parametrize("name", ["l2_norm", "instance_norm", "layer_norm"])
def test_squares_of_half_sums_overflow(name: str) -> None:
    x = np.zeros((1, 1, 16, 16), np.float16)
    x[..., ::2], x[..., 1::2] = 60, -60
    options = {"axes": [1, 2, 3]} if name == "layer_norm" else {}
    body = lambda x: getattr(mb, name)(x=x, **options)  # noqa: E731
    (exact,) = run(body, {"x": x})
    assert exact.abs().min() > 0.05
    (result,) = run(body, {"x": x}, numerics=Numerics.HALF_SUMS)
    assert result.abs().max() == 0


def test_local_response_norm_of_half_sums() -> None:
    x = normal(1, 6, 4, 2).astype(np.float16) * 50
    body = lambda x: mb.local_response_norm(x=x, size=3, alpha=np.float16(0.01))  # noqa: E731
    (result,) = run(body, {"x": x}, numerics=Numerics.HALF_SUMS)
    right = F.local_response_norm(torch.from_numpy(x).float(), 3, 0.01)
    torch.testing.assert_close(result, right, rtol=5e-3, atol=1e-2)

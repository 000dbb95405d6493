"""Pools give what PyTorch gives, with any padding, rounding up, and padding counted or not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.numerics import Numerics
from tests.mil_ops import one, run

relaxed = settings(max_examples=40, deadline=None, derandomize=True)
AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
LARGEST = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def per_axis(axes: int, low: int, high: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(low, high), min_size=axes, max_size=axes)


@st.composite
def cases(draw: st.DrawFn, axes: int = 3) -> tuple[NDArray[np.float32], dict[str, Any]]:
    axes = draw(st.integers(1, axes))
    kernel, extra = draw(per_axis(axes, 1, 4)), draw(per_axis(axes, 0, 5))
    kind = draw(st.sampled_from(["valid", "same", "same_lower", "custom"]))
    options: dict[str, Any] = {"kernel_sizes": kernel, "pad_type": kind}
    options["strides"] = draw(per_axis(axes, 1, 3))
    if kind == "custom":
        # a window of padding alone has no value
        options["pad"] = [min(k - 1, draw(st.integers(0, 2))) for k in kernel for _ in (0, 1)]
    return normal(2, 2, *(k + e for k, e in zip(kernel, extra, strict=True))), options


def ends(x: NDArray[np.float32], options: dict[str, Any]) -> list[tuple[int, int]]:
    """Padding before and after each axis, by TensorFlow's rule for `same`."""
    if options["pad_type"] == "custom":
        return list(zip(options["pad"][::2], options["pad"][1::2], strict=True))
    both = []
    for size, k, stride in zip(
        x.shape[2:], options["kernel_sizes"], options["strides"], strict=True
    ):
        total = max(k - (size % stride or stride), 0) if options["pad_type"] != "valid" else 0
        pair = (total // 2, total - total // 2)
        both.append(pair[::-1] if options["pad_type"] == "same_lower" else pair)
    return both


def padded(x: NDArray[np.float32], options: dict[str, Any], value: float) -> torch.Tensor:
    amounts = [(0, 0), (0, 0), *ends(x, options)]
    return torch.from_numpy(np.pad(x, amounts, constant_values=value))


@relaxed
@given(case=cases(), exclude=st.booleans())
def test_avg_pool(case: tuple[NDArray[np.float32], dict[str, Any]], exclude: bool) -> None:
    x, options = case
    result = one(lambda x: mb.avg_pool(x=x, exclude_padding_from_average=exclude, **options), x=x)
    how = (options["kernel_sizes"], options["strides"])
    pool = AVERAGE[x.ndim - 2]
    right = pool(padded(x, options, 0), *how)
    if exclude:
        right = right / pool(padded(np.ones_like(x), options, 0), *how)
    torch.testing.assert_close(result, right, rtol=1e-5, atol=1e-6)


@relaxed
@given(case=cases())
def test_max_pool(case: tuple[NDArray[np.float32], dict[str, Any]]) -> None:
    x, options = case
    result = one(lambda x: mb.max_pool(x=x, **options), x=x)
    how = (options["kernel_sizes"], options["strides"])
    right = LARGEST[x.ndim - 2](padded(x, options, -math.inf), *how)
    torch.testing.assert_close(result, right, rtol=0, atol=0)


@relaxed
@given(case=cases(axes=2))
def test_l2_pool(case: tuple[NDArray[np.float32], dict[str, Any]]) -> None:
    x, options = case
    result = one(lambda x: mb.l2_pool(x=x, **options), x=x)
    kernel, axes = options["kernel_sizes"], x.ndim - 2
    mean = AVERAGE[axes](padded(x * x, options, 0), kernel, options["strides"])
    torch.testing.assert_close(result, (mean * math.prod(kernel)).sqrt(), rtol=1e-5, atol=1e-5)


@st.composite
def rounded_up(draw: st.DrawFn) -> tuple[NDArray[np.float32], list[int], list[int], list[int]]:
    axes = draw(st.integers(1, 2))
    kernel, extra = draw(per_axis(axes, 1, 5)), draw(per_axis(axes, 0, 6))
    pad = [draw(st.integers(0, k // 2)) for k in kernel]
    sizes = [k + e for k, e in zip(kernel, extra, strict=True)]
    # with longer strides a window may lie past the end
    strides = [draw(st.integers(1, k)) for k in kernel]
    return normal(1, 2, *sizes), kernel, strides, pad


@pytest.mark.parametrize("op", ["avg_pool", "max_pool", "l2_pool"])
def test_a_window_past_the_end_is_refused(op: str) -> None:
    # where PyTorch leaves it out and Core ML's documentation does not say what it holds
    options = {"kernel_sizes": [1, 1], "strides": [2, 1], "pad_type": "valid", "ceil_mode": True}
    with pytest.raises(EngineError, match="window 2 of 1 is past the end of 2"):
        one(lambda x: getattr(mb, op)(x=x, **options), x=normal(1, 1, 2, 2))


@relaxed
@given(case=rounded_up(), exclude=st.booleans(), half=st.booleans())
def test_rounding_up_is_pytorchs(case: Any, exclude: bool, half: bool) -> None:
    x, kernel, strides, pad = case
    options = {"kernel_sizes": kernel, "strides": strides, "ceil_mode": True}
    options |= {"pad_type": "custom", "pad": [amount for amount in pad for _ in (0, 1)]}
    given = {"x": x.astype(np.float16) if half else x}
    tensor, axes = torch.from_numpy(given["x"]).float(), x.ndim - 2
    mode = Numerics.HALF_SUMS if half else Numerics.DECLARED
    (largest,) = run(lambda x: mb.max_pool(x=x, **options), given, numerics=mode)
    torch.testing.assert_close(largest, LARGEST[axes](tensor, kernel, strides, pad, 1, True))
    (average,) = run(
        lambda x: mb.avg_pool(x=x, exclude_padding_from_average=exclude, **options),
        given,
        numerics=mode,
    )
    right = AVERAGE[axes](tensor, kernel, strides, pad, True, not exclude)
    near = 1e-2 if half else 1e-5
    torch.testing.assert_close(average, right, rtol=near, atol=near)
    (length,) = run(lambda x: mb.l2_pool(x=x, **options), given, numerics=mode)
    assert length.shape == right.shape


def test_more_padding_than_half_a_window() -> None:
    # PyTorch's own pools refuse this, Core ML's do not
    x = normal(1, 1, 4, 4)
    options = {"kernel_sizes": [3, 3], "strides": [2, 2], "pad_type": "custom", "pad": [2] * 4}
    average = one(lambda x: mb.avg_pool(x=x, ceil_mode=True, **options), x=x)
    # the last window begins at 4, four of its nine places lie past what is padded
    whole = F.pad(torch.from_numpy(x), [2, 2, 2, 2])
    torch.testing.assert_close(average, F.avg_pool2d(whole, 3, 2, ceil_mode=True)[..., :3, :3])
    largest = one(lambda x: mb.max_pool(x=x, **options), x=x)
    whole = F.pad(torch.from_numpy(x), [2, 2, 2, 2], value=-math.inf)
    torch.testing.assert_close(largest, F.max_pool2d(whole, 3, 2))


@pytest.mark.parametrize("op", ["avg_pool", "l2_pool"])
def test_pools_of_half_sums(op: str) -> None:
    x = (normal(1, 3, 12, 12) * 40 + 500).astype(np.float16)
    options = {"kernel_sizes": [6, 6], "strides": [6, 6], "pad_type": "valid"}
    body = lambda x: getattr(mb, op)(x=x, **options)  # noqa: E731
    (exact,) = run(body, {"x": x})
    (result,) = run(body, {"x": x}, numerics=Numerics.HALF_SUMS)
    if op == "l2_pool":
        assert exact.isfinite().all()
        assert result.isinf().all()
    else:
        assert 0 < (result - exact).abs().max() < 50


@relaxed
@given(case=cases(), exclude=st.booleans())
def test_avg_pool_of_half_sums(case: Any, exclude: bool) -> None:
    x, options = case
    assume(x.size < 2000)
    body = lambda x: mb.avg_pool(x=x, exclude_padding_from_average=exclude, **options)  # noqa: E731
    (result,) = run(body, {"x": x.astype(np.float16)}, numerics=Numerics.HALF_SUMS)
    torch.testing.assert_close(result, one(body, x=x), rtol=2e-2, atol=1e-2)

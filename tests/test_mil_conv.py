"""Convolutions give what PyTorch gives, with every kind of padding and either kind of sum."""

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
from tests.mil_ops import one, run

relaxed = settings(max_examples=40, deadline=None, derandomize=True)
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
Arrays = NDArray[np.float32]


def normal(*shape: int) -> Arrays:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def per_axis(axes: int, low: int, high: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(low, high), min_size=axes, max_size=axes)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    axes = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inner, outer = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel, dilations = draw(per_axis(axes, 1, 3)), draw(per_axis(axes, 1, 2))
    extra = draw(per_axis(axes, 0, 5))
    sizes = [(k - 1) * d + 1 + e for k, d, e in zip(kernel, dilations, extra, strict=True)]
    return {
        "x": normal(draw(st.integers(1, 2)), groups * inner, *sizes),
        "weight": normal(groups * outer, inner, *kernel),
        "bias": draw(st.sampled_from([None, normal(groups * outer)])),
        "strides": draw(per_axis(axes, 1, 3)),
        "dilations": dilations,
        "groups": groups,
        "pad_type": draw(st.sampled_from(["valid", "same", "same_lower", "custom"])),
        "pad": draw(per_axis(2 * axes, 0, 3)),
    }


def ends(sizes: list[int], case: dict[str, Any]) -> list[int]:
    """Padding before and after each axis, by TensorFlow's rule for `same`."""
    if case["pad_type"] in ("valid", "custom"):
        return list(case["pad"]) if case["pad_type"] == "custom" else [0] * (2 * len(sizes))
    both = []
    for axis, size in enumerate(sizes):
        stride = case["strides"][axis]
        reach = (case["weight"].shape[2 + axis] - 1) * case["dilations"][axis] + 1
        rest = size % stride or stride
        total = max(reach - rest, 0)
        pair = [total // 2, total - total // 2]
        both += pair if case["pad_type"] == "same" else pair[::-1]
    return both


def padded(x: Tensor, amounts: list[int]) -> Tensor:
    pairs = [amounts[at : at + 2] for at in range(0, len(amounts), 2)]
    return F.pad(x, [amount for pair in reversed(pairs) for amount in pair])


def expected(case: dict[str, Any]) -> Tensor:
    x = torch.from_numpy(case["x"])
    bias = None if case["bias"] is None else torch.from_numpy(case["bias"])
    x = padded(x, ends(list(x.shape[2:]), case))
    weight = torch.from_numpy(case["weight"])
    how = (bias, case["strides"], 0, case["dilations"], case["groups"])
    return CONV[x.dim() - 2](x, weight, *how)


def given_to(op: str, case: dict[str, Any], half: bool = False) -> dict[str, Any]:
    """What the builder takes: no padding but with `custom`, halves if they are asked for."""
    dropped = {"x", "bias" if case["bias"] is None else "", "" if op else "groups"}
    dropped |= set() if case["pad_type"] == "custom" else {"pad"}
    kept = {name: value for name, value in case.items() if name not in dropped}
    floats = ("weight", "bias") if half else ()
    return {name: kept[name].astype(np.float16) if name in floats else kept[name] for name in kept}


@relaxed
@given(case=cases())
def test_conv(case: dict[str, Any]) -> None:
    result = one(lambda x: mb.conv(x=x, **given_to("conv", case)), x=case["x"])
    torch.testing.assert_close(result, expected(case), rtol=1e-5, atol=1e-5)


def test_same_of_the_specification() -> None:
    # the example in Core ML's own format: padding (1, 1), (0, 1), (0, 1)
    x, weight = normal(1, 3, 3, 8, 8), normal(2, 3, 3, 3, 3)
    result = one(lambda x: mb.conv(x=x, weight=weight, pad_type="same", strides=[2, 2, 2]), x=x)
    whole = F.pad(torch.from_numpy(x), [0, 1, 0, 1, 1, 1])
    assert result.shape == (1, 2, 2, 4, 4)
    torch.testing.assert_close(result, F.conv3d(whole, torch.from_numpy(weight), stride=2))


def test_conv_with_a_weight_of_the_program() -> None:
    x, weight = normal(1, 2, 5, 5), normal(3, 2, 3, 3)
    result = one(lambda x, weight: mb.conv(x=x, weight=weight), x=x, weight=weight)
    torch.testing.assert_close(result, F.conv2d(torch.from_numpy(x), torch.from_numpy(weight)))


def one_by_one(x: Arrays, weight: Arrays) -> Arrays:
    """A 2-D convolution of stride 1 whose every product and sum is a half-precision number."""
    x, weight = x.astype(np.float16), weight.astype(np.float16)
    groups = x.shape[1] // weight.shape[1]
    height, width = (x.shape[2 + at] - weight.shape[2 + at] + 1 for at in (0, 1))
    total = np.zeros((len(x), len(weight), height, width), np.float16)
    for out in range(len(weight)):
        first = out // (len(weight) // groups) * weight.shape[1]
        for channel, row, column in np.ndindex(*weight.shape[1:]):
            part = x[:, first + channel, row : row + height, column : column + width]
            total[:, out] += part * weight[out, channel, row, column]
    return total.astype(np.float32)


@pytest.mark.parametrize("groups", [1, 2, 4], ids=["dense", "grouped", "depthwise"])
def test_conv_of_half_sums(groups: int) -> None:
    x = (normal(2, 4, 7, 6) * 30).astype(np.float16)
    weight = normal(8, 4 // groups, 3, 2).astype(np.float16)
    body = lambda x: mb.conv(x=x, weight=weight, groups=groups)  # noqa: E731
    (result,) = run(body, {"x": x}, numerics=Numerics.HALF_SUMS)
    np.testing.assert_array_equal(result, one_by_one(x, weight))
    (exact,) = run(body, {"x": x})
    assert 0 < (result - exact).abs().max() < 2


def test_half_sums_overflow_on_the_way() -> None:
    x = np.array([6e4, 6e4, -6e4], np.float16).reshape(1, 3, 1, 1)
    weight = np.ones((1, 3, 1, 1), np.float16)
    body = lambda x: mb.conv(x=x, weight=weight)  # noqa: E731
    assert run(body, {"x": x})[0].item() == pytest.approx(6e4, rel=1e-3)
    assert run(body, {"x": x}, numerics=Numerics.HALF_SUMS)[0].item() == np.inf


@settings(relaxed, max_examples=25)
@given(case=cases())
def test_half_sums_agree_with_exact_ones(case: dict[str, Any]) -> None:
    x, options = case["x"].astype(np.float16), given_to("conv", case, half=True)
    (result,) = run(lambda x: mb.conv(x=x, **options), {"x": x}, numerics=Numerics.HALF_SUMS)
    torch.testing.assert_close(result, expected(case), rtol=0.02, atol=0.05)


@st.composite
def transposed(draw: st.DrawFn) -> dict[str, Any]:
    """A case for `conv_transpose`: the case of the convolution whose gradient it is."""
    case = draw(cases())
    case["pad_type"] = draw(st.sampled_from(["valid", "same", "custom"]))
    strides, weight = case["strides"], case["weight"]
    small = [min(size, 4) for size in case["x"].shape[2:]]
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], case["dilations"], strict=True)]
    case["pad"] = [min(amount, (reach[at // 2] - 1) // 2) for at, amount in enumerate(case["pad"])]
    channels = weight.shape[1] * case["groups"]
    case["bias"] = None if case["bias"] is None else normal(channels)
    case["x"] = normal(2, weight.shape[0], *small)
    more = [draw(st.integers(0, stride - 1)) for stride in strides]
    if case["pad_type"] == "same":
        sizes = [n * s - m for n, s, m in zip(small, strides, more, strict=True)]
    else:
        cut = case["pad"] if case["pad_type"] == "custom" else [0] * len(case["pad"])
        sizes = [
            (n - 1) * s + r - cut[2 * at] - cut[2 * at + 1] + more[at]
            for at, (n, s, r) in enumerate(zip(small, strides, reach, strict=True))
        ]
    case["sizes"] = [2, channels, *sizes] if any(more) else None
    case["plain"] = [2, channels, *(size if not any(more) else 0 for size in sizes)]
    return case


def gradient(case: dict[str, Any]) -> Tensor:
    """Of the convolution of an output of the wanted size, with respect to that output."""
    shape = case["sizes"] or case["plain"]
    zeros = torch.zeros(shape, requires_grad=True)
    whole = padded(zeros, ends(shape[2:], case))
    weight = torch.from_numpy(case["weight"])
    axes, how = len(shape) - 2, (None, case["strides"], 0, case["dilations"], case["groups"])
    forward = CONV[axes](whole, weight, *how)
    (result,) = torch.autograd.grad(forward, zeros, torch.from_numpy(case["x"]))
    bias = torch.zeros(()) if case["bias"] is None else torch.from_numpy(case["bias"])
    return result + bias.reshape(-1, *(1,) * axes)


@relaxed
@given(case=transposed(), half=st.booleans())
def test_conv_transpose(case: dict[str, Any], half: bool) -> None:
    hidden = {name: case[name] for name in case if name not in ("sizes", "plain")}
    options = given_to("conv_transpose", hidden, half)
    if case["sizes"] is not None:
        options["output_shape"] = case["sizes"]
    x = case["x"].astype(np.float16 if half else np.float32)
    mode = Numerics.HALF_SUMS if half else Numerics.DECLARED
    (result,) = run(lambda x: mb.conv_transpose(x=x, **options), {"x": x}, numerics=mode)
    near = {"rtol": 0.02, "atol": 0.05} if half else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(result, gradient(case), **near)


def test_conv_transpose_is_pytorchs() -> None:
    layer = torch.nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
    x, weight = normal(1, 4, 5, 6), layer.weight.detach().numpy()
    bias = layer.bias.detach().numpy() if layer.bias is not None else None
    options = {"pad_type": "custom", "pad": [1, 1, 1, 1], "strides": [2, 2], "groups": 2}
    result = one(
        lambda x: mb.conv_transpose(
            x=x, weight=weight, bias=bias, output_shape=[1, 6, 10, 12], **options
        ),
        x=x,
    )
    torch.testing.assert_close(result, layer(torch.from_numpy(x)).detach())


def test_conv_quantized() -> None:
    x = normal(1, 2, 6, 6)
    weight = np.random.default_rng(0).integers(0, 256, (3, 2, 3, 3)).astype(np.uint8)
    scale, zero = np.float32([0.1, 0.2, 0.05]), np.float32([-12, -25, -6])
    options = {"weight": weight, "nbits": 8, "quant_scale": scale, "quant_bias": zero}
    options |= {"strides": [2, 1], "pad_type": "same"}
    result = one(lambda x: mb.conv_quantized(x=x, quantization_type="linear", **options), x=x)
    floats = weight * scale.reshape(-1, 1, 1, 1) + zero.reshape(-1, 1, 1, 1)
    whole = F.pad(torch.from_numpy(x), [1, 1, 0, 1])
    right = F.conv2d(whole, torch.from_numpy(floats.astype(np.float32)), stride=(2, 1))
    torch.testing.assert_close(result, right, rtol=1e-5, atol=1e-4)
    with pytest.raises(EngineError, match="quantization_type 'lut' is not supported"):
        one(lambda x: mb.conv_quantized(x=x, quantization_type="lut", **options), x=x)

"""Activations give what PyTorch's own give, and what coremltools computes of constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor

from phoneward.runtime.engines.mil.numerics import Numerics
from phoneward.runtime.engines.mil.ops.activation import gelu
from tests.mil_ops import inferred, one, run

relaxed = settings(max_examples=25, deadline=None, derandomize=True)
shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)
VALUES = st.floats(-60, 60, width=32)
floats = hnp.arrays(np.float32, shapes, elements=VALUES)
images = hnp.arrays(np.float32, hnp.array_shapes(min_dims=4, max_dims=4), elements=VALUES)
Oracle = Callable[..., Tensor]

PLAIN: dict[str, Oracle] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros(())),
    "softsign": F.softsign,
}

ALPHA: dict[str, Callable[[Tensor, float], Tensor]] = {
    "elu": lambda x, alpha: F.elu(x, alpha),
    "leaky_relu": lambda x, alpha: F.leaky_relu(x, alpha),
    "thresholded_relu": lambda x, alpha: torch.where(x >= alpha, x, torch.zeros(())),
}

ALPHA_BETA: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "clamped_relu": lambda x, alpha, beta: torch.minimum(
        F.leaky_relu(x, alpha), torch.tensor(beta)
    ),
    "linear_activation": lambda x, alpha, beta: torch.add(torch.mul(x, alpha), beta),
    "scaled_tanh": lambda x, alpha, beta: torch.tanh(x * beta) * alpha,
    "sigmoid_hard": lambda x, alpha, beta: F.hardtanh(x * alpha + beta, 0, 1),
}


def near(result: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(result, expected.float(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", PLAIN)
@relaxed
@given(x=floats)
def test_an_activation_without_parameters(name: str, x: NDArray[np.float32]) -> None:
    result = one(lambda x: getattr(mb, name)(x=x), x=x)
    near(result, PLAIN[name](torch.from_numpy(x).double()))


@pytest.mark.parametrize("name", ALPHA)
@relaxed
@given(x=floats, alpha=st.sampled_from([0.0, 0.125, 1.0, 2.5]))
def test_an_activation_with_alpha(name: str, x: NDArray[np.float32], alpha: float) -> None:
    result = one(lambda x: getattr(mb, name)(x=x, alpha=np.float32(alpha)), x=x)
    near(result, ALPHA[name](torch.from_numpy(x), alpha))


@pytest.mark.parametrize("name", ALPHA_BETA)
@relaxed
@given(
    x=floats,
    alpha=st.sampled_from([-1.5, 0.0, 0.125, 1.0]),
    beta=st.sampled_from([-0.5, 0.0, 0.5, 6.0]),
)
def test_an_activation_with_alpha_and_beta(
    name: str, x: NDArray[np.float32], alpha: float, beta: float
) -> None:
    op = getattr(mb, name)
    result = one(lambda x: op(x=x, alpha=np.float32(alpha), beta=np.float32(beta)), x=x)
    near(result, ALPHA_BETA[name](torch.from_numpy(x), alpha, beta))


# all but silu, which coremltools does not compute
@pytest.mark.parametrize("name", sorted({*PLAIN, *ALPHA, *ALPHA_BETA} - {"silu"}))
def test_as_coremltools_computes_it(name: str) -> None:
    x = np.linspace(-4, 7, 23).astype(np.float32)
    constants: dict[str, Any] = {}
    if name not in PLAIN:
        constants["alpha"] = np.float32(0.3)
    if name in ALPHA_BETA:
        constants["beta"] = np.float32(1.5)
    op = getattr(mb, name)
    # coremltools' own writes into the array it is given
    (expected,) = inferred(lambda: op(x=x.copy(), **constants))
    result = one(lambda x: op(x=x, **constants), x=x)
    np.testing.assert_allclose(result.numpy(), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", [*PLAIN, *ALPHA, *ALPHA_BETA])
def test_what_is_no_number_stays_so_and_huge_values_do_no_harm(name: str) -> None:
    x = np.array([np.nan, 3e38, -3e38], np.float32)
    constants: dict[str, Any] = {}
    if name not in PLAIN:
        constants["alpha"] = np.float32(0.5)
    if name in ALPHA_BETA:
        constants["beta"] = np.float32(0.5)
    result = one(lambda x: getattr(mb, name)(x=x, **constants), x=x)
    assert result[0].isnan()
    assert not result[1:].isnan().any()


GELUS: dict[str, Oracle] = {
    "EXACT": lambda x: x * torch.distributions.Normal(0, 1).cdf(x),
    "TANH_APPROXIMATION": lambda x: (
        0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    ),
    "SIGMOID_APPROXIMATION": lambda x: x / (1 + torch.exp(-1.702 * x)),
}


@pytest.mark.parametrize("mode", GELUS)
@relaxed
@given(x=floats)
def test_gelu(mode: str, x: NDArray[np.float32]) -> None:
    near(one(lambda x: mb.gelu(x=x, mode=mode), x=x), GELUS[mode](torch.from_numpy(x).double()))


def test_an_unknown_gelu_is_an_error() -> None:
    with pytest.raises(ValueError, match="CUBIC"):
        gelu(torch.zeros(1), "CUBIC")


@relaxed
@given(x=images, seed=st.integers(0, 2**31))
def test_prelu_has_a_slope_for_each_channel(x: NDArray[np.float32], seed: int) -> None:
    alpha = np.random.default_rng(seed).standard_normal(x.shape[1]).astype(np.float32)
    result = one(lambda x: mb.prelu(x=x, alpha=alpha), x=x)
    near(result, F.prelu(torch.from_numpy(x), torch.from_numpy(alpha)))


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 3, 2, 2, 2)])
def test_prelu_of_other_ranks(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    alpha = np.full(3, 0.25, np.float32)
    result = one(lambda x: mb.prelu(x=x, alpha=alpha), x=x)
    near(result, F.leaky_relu(torch.from_numpy(x), 0.25))


@relaxed
@given(x=images, seed=st.integers(0, 2**31))
def test_softplus_parametric_of_each_channel(x: NDArray[np.float32], seed: int) -> None:
    generator = np.random.default_rng(seed)
    alpha, beta = (generator.uniform(-2, 2, x.shape[1]).astype(np.float32) for _ in range(2))
    result = one(lambda x: mb.softplus_parametric(x=x, alpha=alpha, beta=beta), x=x)
    for channel in range(x.shape[1]):
        scaled = torch.from_numpy(x[:, channel]) * beta[channel].item()
        expected = torch.logaddexp(scaled.double(), torch.zeros(())) * alpha[channel].item()
        near(result[:, channel], expected)


@relaxed
@given(x=floats, data=st.data())
def test_softmax(x: NDArray[np.float32], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    result = one(lambda x: mb.softmax(x=x, axis=axis), x=x)
    powers = torch.from_numpy(x).double().exp()
    near(result, powers / powers.sum(axis, keepdim=True))
    (expected,) = inferred(lambda: mb.softmax(x=x, axis=axis))
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_softmax_of_huge_and_of_no_values() -> None:
    x = np.array([[1e38, 1e38, -np.inf], [-np.inf, 0, 3e38]], np.float32)
    result = one(lambda x: mb.softmax(x=x), x=x)
    assert result.tolist() == [[0.5, 0.5, 0], [0, 0, 1]]


def test_a_softmax_with_half_sums_errs_as_such_sums_do() -> None:
    x = np.zeros((1, 4096), np.float16)
    declared, worst = (
        run(lambda x: mb.softmax(x=x), {"x": x}, numerics=numerics)[0]
        for numerics in (Numerics.DECLARED, Numerics.HALF_SUMS)
    )
    assert declared[0, 0] == 1 / 4096
    # 1 is lost beside 2048, where halves are 2 apart
    assert worst[0, 0] == 1 / 2048


def test_parameters_of_another_type_than_the_value() -> None:
    x = np.array([-1, 1], np.float16)
    result = one(lambda x: mb.leaky_relu(x=x, alpha=np.float32(0.1)), x=x)
    assert result.tolist() == [torch.tensor(-0.1).half().item(), 1]

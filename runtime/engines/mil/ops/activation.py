"""Activations: elementwise, and softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from phoneward.runtime.engines.mil.numerics import Sums, rounded
from phoneward.runtime.engines.mil.signature import Table

TABLE = Table()


@TABLE.op
def relu(x: Tensor) -> Tensor:
    return x.relu()


@TABLE.op
def relu6(x: Tensor) -> Tensor:
    return x.clamp(0, 6)


@TABLE.op
def clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.where(x >= 0, x, alpha * x).clamp(max=beta)


@TABLE.op
def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x >= 0, x, alpha * x)


@TABLE.op
def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x > 0, x, _of_channels(alpha, x) * x)


@TABLE.op
def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    # what is no number is not below the threshold, and stays
    return torch.where(x < alpha, 0, x)


@TABLE.op
def elu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x > 0, x, alpha * x.expm1())


@TABLE.op
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "EXACT":
        return F.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return F.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * (1.702 * x).sigmoid()
    raise ValueError(f"unknown mode '{mode}'")


@TABLE.op
def silu(x: Tensor) -> Tensor:
    return F.silu(x)


@TABLE.op
def sigmoid(x: Tensor) -> Tensor:
    return x.sigmoid()


@TABLE.op
def sigmoid_hard(x: Tensor, alpha: float, beta: float) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


@TABLE.op
def linear_activation(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * x + beta


@TABLE.op
def scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * (beta * x).tanh()


@TABLE.op
def softplus(x: Tensor) -> Tensor:
    return _softplus(x)


@TABLE.op
def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return _of_channels(alpha, x) * _softplus(_of_channels(beta, x) * x)


@TABLE.op
def softsign(x: Tensor) -> Tensor:
    return x / (1 + x.abs())


@TABLE.op
def softmax(x: Tensor, axis: int = -1, *, sums: Sums) -> Tensor:
    if sums.exact:
        return x.softmax(axis)
    powers = rounded((x - x.amax(axis, keepdim=True)).exp())
    return powers / sums.total(powers, [axis])


def _softplus(x: Tensor) -> Tensor:
    # torch's own goes linear above a threshold; this is exact everywhere, and never overflows
    return (-x.abs()).exp().log1p() + x.relu()


def _of_channels(values: Tensor, x: Tensor) -> Tensor:
    """Values of the channels, the second axis of `x`, to be broadcast against it."""
    return values.reshape(-1, *(1,) * (x.dim() - 2))

"""Activations: elementwise, and softmax."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from phoneward.runtime.engines.mil.signature import Table

TABLE = Table()


@TABLE.op
def relu(x: Tensor) -> Tensor:
    return F.relu(x)


@TABLE.op
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * (1.702 * x).sigmoid()
    return F.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


@TABLE.op
def silu(x: Tensor) -> Tensor:
    return F.silu(x)


@TABLE.op
def sigmoid(x: Tensor) -> Tensor:
    return x.sigmoid()


@TABLE.op
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    return x.softmax(axis)

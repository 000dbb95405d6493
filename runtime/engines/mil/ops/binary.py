"""Elementwise ops on two values, which are broadcast as numpy does."""

from __future__ import annotations

import torch
from torch import Tensor

from phoneward.runtime.engines.mil.signature import Table

TABLE = Table()


@TABLE.op
def add(x: Tensor, y: Tensor) -> Tensor:
    return x + y


@TABLE.op
def mul(x: Tensor, y: Tensor) -> Tensor:
    return x * y


@TABLE.op
def sub(x: Tensor, y: Tensor) -> Tensor:
    return x - y


@TABLE.op
def maximum(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x, y)

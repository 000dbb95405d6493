"""Elementwise ops on one value."""

from __future__ import annotations

import torch
from torch import Tensor

from phoneward.runtime.engines.mil.signature import Table

TABLE = Table()

_FLOATS = ("fp16", "fp32")
_RANGES = {
    "int8": (-(1 << 7), (1 << 7) - 1),
    "uint8": (0, (1 << 8) - 1),
    "int16": (-(1 << 15), (1 << 15) - 1),
    "uint16": (0, (1 << 16) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
}


@TABLE.op
def abs_(x: Tensor) -> Tensor:
    return x.abs()


@TABLE.op
def acos(x: Tensor) -> Tensor:
    return x.acos()


@TABLE.op
def asin(x: Tensor) -> Tensor:
    return x.asin()


@TABLE.op
def atan(x: Tensor) -> Tensor:
    return x.atan()


@TABLE.op
def atanh(x: Tensor) -> Tensor:
    return x.atanh()


@TABLE.op
def ceil(x: Tensor) -> Tensor:
    return x.ceil()


@TABLE.op
def clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    # the upper bound wins where the bounds are crossed
    return torch.minimum(torch.maximum(x, alpha), beta)


@TABLE.op
def cos(x: Tensor) -> Tensor:
    return x.cos()


@TABLE.op
def cosh(x: Tensor) -> Tensor:
    return x.cosh()


@TABLE.op
def erf(x: Tensor) -> Tensor:
    return x.erf()


@TABLE.op
def exp(x: Tensor) -> Tensor:
    return x.exp()


@TABLE.op
def exp2(x: Tensor) -> Tensor:
    return x.exp2() if x.is_floating_point() else torch.pow(torch.full_like(x, 2), x)


@TABLE.op
def floor(x: Tensor) -> Tensor:
    return x.floor()


@TABLE.op
def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    return 1 / (x + epsilon)


@TABLE.op
def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    return (x + epsilon).log()


@TABLE.op
def logical_not(x: Tensor) -> Tensor:
    return x.logical_not()


@TABLE.op
def round_(x: Tensor) -> Tensor:
    return x.round()  # halves to the even neighbour


@TABLE.op
def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    return 1 / (x + epsilon).sqrt()


@TABLE.op
def sign(x: Tensor) -> Tensor:
    return x.sign()


@TABLE.op
def sin(x: Tensor) -> Tensor:
    return x.sin()


@TABLE.op
def sinh(x: Tensor) -> Tensor:
    return x.sinh()


@TABLE.op
def sqrt(x: Tensor) -> Tensor:
    return x.sqrt()


@TABLE.op
def square(x: Tensor) -> Tensor:
    return x * x


@TABLE.op
def tan(x: Tensor) -> Tensor:
    return x.tan()


@TABLE.op
def tanh(x: Tensor) -> Tensor:
    return x.tanh()


@TABLE.op
def threshold(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.maximum(x, alpha)


@TABLE.op
def cast(x: Tensor, dtype: str) -> Tensor:
    """Change the type; towards integers the fraction is cut.

    Integers wrap at the new width. Core ML does not say what floats beyond it become: here the
    nearest integer it has, as on Apple's GPUs (a CPU may wrap), and 0 where there is no number.
    """
    if dtype in _FLOATS:
        return x.float()
    if dtype == "bool":
        return x != 0
    if dtype not in _RANGES:
        raise ValueError(f"cannot cast to '{dtype}'")
    lowest, highest = _RANGES[dtype]
    if x.is_floating_point():
        # in 64 bits: float32 has no 2**31 - 1
        return x.double().nan_to_num(0.0).trunc().clamp(lowest, highest).int()
    return (torch.remainder(x.long() - lowest, highest - lowest + 1) + lowest).int()

"""Random numbers, by NumPy.

Core ML's own numbers cannot be reproduced: these are others of the same distribution. An op with
a seed gives the same at every call; a seed of -1, the default, asks for new ones each time.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phoneward.runtime.engines.mil.signature import Ints, Table

TABLE = Table()

_UNSEEDED = -1


@TABLE.op
def random_bernoulli(shape: Ints, prob: float = 0.5, seed: int = _UNSEEDED) -> Tensor:
    return _float(_generator(seed).random(shape) < prob)


@TABLE.op
def random_categorical(
    x: Tensor, mode: str = "logits", size: int = 1, seed: int = _UNSEEDED
) -> Tensor:
    if mode not in ("logits", "probs"):
        raise ValueError(f"no mode '{mode}'")
    logits = x.double() if mode == "logits" else x.double().log()
    # the largest of logits with Gumbel noise is drawn with the probability of its softmax
    noise = _generator(seed).gumbel(size=(*x.shape[:-1], size, x.shape[-1]))
    return (logits[..., None, :] + torch.from_numpy(noise)).argmax(-1).float()


@TABLE.op
def random_normal(
    shape: Ints, mean: float = 0.0, stddev: float = 1.0, seed: int = _UNSEEDED
) -> Tensor:
    return _float(_generator(seed).normal(mean, stddev, shape))


@TABLE.op
def random_uniform(
    shape: Ints, low: float = 0.0, high: float = 1.0, seed: int = _UNSEEDED
) -> Tensor:
    return _float(_generator(seed).uniform(low, high, shape))


def _generator(seed: int) -> np.random.Generator:
    # a seed may be any 32-bit number, NumPy's none below zero
    return np.random.default_rng(None if seed == _UNSEEDED else seed % 2**32)


def _float(values: NDArray[np.float64] | NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))

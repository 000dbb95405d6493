"""How numbers behave while a program runs: as declared, in float32, or at half precision's worst.

Core ML does not say in which precision its compute units add up. As declared, every op's result is
rounded to the type the program gives it and sums are kept in float32, which is what the Neural
Engine is seen to do; with `HALF_SUMS` sums too are rounded to half precision at every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import torch
from torch import Tensor

# values that fit a core's cache and that PyTorch does not spread over threads, and the fewest
# columns that are worth a step
_BLOCK, _NARROWEST = 2**15, 64


class Numerics(str, Enum):
    """How to round: `DECLARED` as Core ML has it, `FLOAT32` never, `HALF_SUMS` the worst case."""

    DECLARED = "declared"
    FLOAT32 = "float32"
    HALF_SUMS = "half-sums"


class Sums(Protocol):
    """Adds up products and values; ops that accumulate ask for one as their parameter `sums`."""

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """Product of (..., n, k) and (..., k, m), both float32."""
        ...

    def total(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """Sum over `axes`, which stay with size 1."""
        ...

    @property
    def exact(self) -> bool:
        """Whether any other float32 way to the same sum will do."""
        ...


class FloatSums:
    """Sums in float32."""

    exact = True

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """Product of (..., n, k) and (..., k, m), both float32."""
        return a @ b

    def total(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """Sum over `axes`, which stay with size 1."""
        return x.sum(dim=tuple(axes), keepdim=True) if axes else x


class HalfSums:
    """Sums one term after the other, each product and each sum rounded to half precision."""

    exact = False

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """Product of (..., n, k) and (..., k, m), both rounded to half precision; k steps."""
        batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        # half tensors round every result by themselves, ten times as fast as one does by hand
        columns, rows = a.half().mT.contiguous(), b.half()
        width = max(_BLOCK // max(math.prod(batch) * a.shape[-2], 1), _NARROWEST)
        parts = []
        for block in rows.split(width, dim=-1):
            total = torch.zeros((*batch, a.shape[-2], block.shape[-1]), dtype=torch.half)
            product = torch.empty_like(total)
            for at in range(a.shape[-1]):
                torch.mul(columns[..., at, :, None], block[..., at : at + 1, :], out=product)
                total += product
            parts.append(total)
        return torch.cat(parts, dim=-1).float()

    def total(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """Sum over `axes`, which stay with size 1."""
        for axis in axes:
            total = torch.zeros((), dtype=torch.float32)
            for part in x.split(1, dim=axis):
                total = rounded(total + part)
            x = total
        return x


def rounded(x: Tensor) -> Tensor:
    """Round float32 values to those that half precision has; too large ones become infinite."""
    return x.half().float()

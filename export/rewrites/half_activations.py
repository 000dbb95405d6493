"""SiLU and GELU from the operations that XNNPACK has in half precision.

Before: `aten.silu`, whose decomposition computes in fp32 between two casts, and `aten.gelu`, which
XNNPACK's partitioner takes in fp32 only; both cut the graph at every activation (MobileViT: 70
casts outside the delegate, EfficientFormer: 15 gelu).
After: `x * sigmoid(x)`, which is SiLU, and `x * sigmoid(x * (a + b * x^2))`, which is the tanh form
of GELU (Hendrycks and Gimpel, arXiv:1606.08415, with a = sqrt(8 / pi) and b = 0.044715 a). It is
at most 5e-4 from GELU, where half precision resolves 1e-3 to 2e-3. Shapes are unchanged. For half
precision only.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from timm.layers import activations
from torch import Tensor, nn

from phoneward.export.rewrites.modules import replace

_SLOPE = math.sqrt(8 / math.pi)
_CUBE = 0.044715 * _SLOPE


class GatedSiLU(nn.Module):
    """SiLU, element by element."""

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to itself."""
        return x * x.sigmoid()


class GatedGELU(nn.Module):
    """GELU's tanh form, element by element."""

    def __init__(self) -> None:
        super().__init__()
        # tensors, which become half with the model: numbers would be cast at run time
        self.register_buffer("slope", torch.tensor(_SLOPE), persistent=False)
        self.register_buffer("cube", torch.tensor(_CUBE), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to itself."""
        slope, cube = cast(Tensor, self.slope), cast(Tensor, self.cube)
        return x * (x * (slope + cube * (x * x))).sigmoid()


def apply(model: nn.Module) -> int:
    """Replace every `SiLU` and `GELU`; returns how many."""
    silus = replace(model, nn.SiLU, lambda _: GatedSiLU())
    gelus = sum(replace(model, kind, lambda _: GatedGELU()) for kind in (nn.GELU, activations.GELU))
    return silus + gelus

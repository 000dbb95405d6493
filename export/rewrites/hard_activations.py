"""Hard swish and hard sigmoid as the clamp they are.

Before: `aten.hardswish`, `aten.hardsigmoid`, whose decompositions add an integer 3 that is cast to
the dtype at run time, a copy which XNNPACK's partitioner refuses (it cuts MobileNetV3 there).
After: `x * clamp(x + 3.0, 0.0, 6.0) / 6` and `clamp(x + 3.0, 0.0, 6.0) / 6`. Shapes are unchanged.
"""

from __future__ import annotations

from torch import Tensor, nn

from phoneward.export.rewrites.modules import replace


class ClampSigmoid(nn.Module):
    """Hard sigmoid, element by element."""

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to itself, values 0 to 1."""
        return (x + 3.0).clamp(0.0, 6.0) * (1 / 6)


class ClampSwish(nn.Module):
    """Hard swish, element by element."""

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to itself."""
        return x * ((x + 3.0).clamp(0.0, 6.0) * (1 / 6))


def apply(model: nn.Module) -> int:
    """Replace every `Hardswish` and `Hardsigmoid`; returns how many."""
    swishes = replace(model, nn.Hardswish, lambda _: ClampSwish())
    return swishes + replace(model, nn.Hardsigmoid, lambda _: ClampSigmoid())

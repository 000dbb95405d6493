"""Global average pooling as one mean.

Before: `AdaptiveAvgPool2d(1)`, whose decomposition copies strides (`as_strided_copy`) when the map
before it is channels-last, an op that no delegate takes.
After: `x.mean((2, 3), keepdim=True)`, (B, C, H, W) -> (B, C, 1, 1).
"""

from __future__ import annotations

from torch import Tensor, nn


class MeanPool(nn.Module):
    """(B, C, H, W) -> (B, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """Average over the pixels."""
        return x.mean((2, 3), keepdim=True)


def apply(model: nn.Module) -> int:
    """Replace every `AdaptiveAvgPool2d` with output size 1; returns how many."""
    found = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1))
    ]
    for parent, name in found:
        setattr(parent, name, MeanPool())
    return len(found)

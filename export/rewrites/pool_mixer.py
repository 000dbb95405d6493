"""EfficientFormer's pooling mixer, with its scale and shortcut.

Before: `x + gamma * (AvgPool(x) - x)` on (B, C, H, W): pool, subtract, scale, add.
After: `x * (1 - gamma) + gamma * AvgPool(x)`.
"""

from __future__ import annotations

from timm.models.efficientformer import MetaBlock2d
from torch import Tensor, nn

from phoneward.export.rewrites.modules import replace


class PoolMixerBlock(nn.Module):
    """A `MetaBlock2d`, (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, source: MetaBlock2d) -> None:
        super().__init__()
        gamma = source.ls1.gamma.detach().view(1, -1, 1, 1)
        self.pool = source.token_mixer.pool
        self.register_buffer("gamma", gamma.clone())
        self.register_buffer("rest", 1 - gamma)
        self.mlp, self.ls2 = source.mlp, source.ls2

    def forward(self, x: Tensor) -> Tensor:
        """Mix neighbours, then channels."""
        x = x * self.rest + self.pool(x) * self.gamma
        out: Tensor = x + self.ls2(self.mlp(x))
        return out


def apply(model: nn.Module) -> int:
    """Replace every `MetaBlock2d`; returns how many."""
    return replace(model, MetaBlock2d, PoolMixerBlock)

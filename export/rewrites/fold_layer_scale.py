"""Fold LayerScale into the layer that feeds it.

Before: `x + gamma * (W y + b)`, a multiplication of the whole tensor, (B, N, C) or (B, C, H, W).
After: `x + (gamma W) y + gamma b`; of a BatchNorm that ends the branch, weight and bias are scaled.

EfficientFormer's and EfficientFormerV2's blocks. The scale of EfficientFormer's pooling mixer has
no weights in front and belongs to `pool_mixer`. Apply before BatchNorms are folded.
"""

from __future__ import annotations

import torch
from timm.models.efficientformer import MetaBlock1d, MetaBlock2d
from timm.models.efficientformer_v2 import EfficientFormerV2Block
from torch import nn

# a block's scales, and the last layer of the branch that each one scales
_LAYERS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    MetaBlock1d: (("ls1", "token_mixer.proj"), ("ls2", "mlp.fc2")),
    MetaBlock2d: (("ls2", "mlp.norm2"),),
    EfficientFormerV2Block: (("ls1", "token_mixer.proj.bn"), ("ls2", "mlp.fc2.bn")),
}


def apply(model: nn.Module) -> int:
    """Fold every LayerScale behind a weighted layer; returns how many."""
    return sum(_fold_block(module) for module in model.modules())


def _fold_block(block: nn.Module) -> int:
    return sum(
        _fold(block, name, path)
        for name, path in _LAYERS.get(type(block), ())
        if hasattr(getattr(block, name), "gamma")
    )


def _fold(block: nn.Module, name: str, path: str) -> int:
    gamma, layer = getattr(block, name).gamma.detach(), block.get_submodule(path)
    with torch.no_grad():
        layer.weight.mul_(gamma.view(-1, *(1,) * (layer.weight.dim() - 1)))
        layer.bias.mul_(gamma)
    setattr(block, name, nn.Identity())
    return 1

"""Fold BatchNorm into the convolution before it.

Before: `Conv2d -> BatchNormAct2d` in timm's `ConvNormAct`, two nodes and a bias-free kernel.
After: one `Conv2d` with kernel `w * gamma / sigma` and bias `beta - mean * gamma / sigma`; what the
norm does besides (dropout that is off, the activation) stays in its place. Shapes are unchanged.
"""

from __future__ import annotations

from timm.layers import BatchNormAct2d, ConvNormAct
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def apply(model: nn.Module) -> int:
    """Fold every BatchNorm of a `ConvNormAct` in eval mode; returns how many."""
    found = [m for m in model.modules() if isinstance(m, ConvNormAct) and _can_fold(m)]
    for block in found:
        norm = block.bn
        block.conv = fuse_conv_bn_eval(block.conv, norm)
        block.bn = norm.act
    return len(found)


def _can_fold(block: ConvNormAct) -> bool:
    plain_conv = type(block.conv) is nn.Conv2d
    return plain_conv and isinstance(block.bn, BatchNormAct2d) and not block.bn.training

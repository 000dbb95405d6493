"""Fold BatchNorm into the convolution before it, in EfficientFormer and EfficientFormerV2.

Before: `Conv2d -> BatchNorm2d`, (B, C, H, W) -> (B, C', H', W').
After: one `Conv2d` with kernel `w * gamma / sigma` and bias `(b - mean) * gamma / sigma + beta`.
The layers of timm's `ConvNormAct` are those of `fuse_batch_norm`.
"""

from __future__ import annotations

from timm.models import efficientformer as v1
from timm.models import efficientformer_v2 as v2
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# which attributes of a module hold a convolution and the norm behind it
_PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    v1.Stem4: (("conv1", "norm1"), ("conv2", "norm2")),
    v1.Downsample: (("conv", "norm"),),
    v1.ConvMlpWithNorm: (("fc1", "norm1"), ("fc2", "norm2")),
    v2.ConvNorm: (("conv", "bn"),),
}


def apply(model: nn.Module) -> int:
    """Fold every pair; returns how many."""
    return sum(
        _fold(module, conv, norm)
        for module in model.modules()
        for conv, norm in _PAIRS.get(type(module), ())
    )


def fused(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """Return one convolution that equals `norm(conv(x))`; neither argument is changed."""
    if isinstance(norm, nn.Identity):
        return conv
    folded: nn.Conv2d = fuse_conv_bn_eval(conv, norm)
    return folded


def _fold(module: nn.Module, conv: str, norm: str) -> int:
    if not isinstance(getattr(module, norm), nn.BatchNorm2d):
        return 0
    setattr(module, conv, fused(getattr(module, conv), getattr(module, norm)))
    setattr(module, norm, nn.Identity())
    return 1

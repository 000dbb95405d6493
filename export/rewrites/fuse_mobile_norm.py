"""Fold BatchNorm into the convolution before it, in MobileNetV2/V3 and EfficientNet-Lite.

Before: `Conv2d -> BatchNormAct2d`, (B, C, H, W) -> (B, C', H', W'), as neighbouring attributes of a
block (`conv_pw` and `bn1`, ...).
After: one `Conv2d` with kernel `w * gamma / sigma` and bias `beta - mean * gamma / sigma`, then the
norm's activation. In half precision this also saves a rounding a layer.
"""

from __future__ import annotations

from timm.layers import BatchNormAct2d
from timm.models import _efficientnet_blocks as blocks
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    EfficientNet: (("conv_stem", "bn1"), ("conv_head", "bn2")),
    MobileNetV3: (("conv_stem", "bn1"),),
    blocks.ConvBnAct: (("conv", "bn1"),),
    blocks.DepthwiseSeparableConv: (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    blocks.InvertedResidual: (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
}


def apply(model: nn.Module) -> int:
    """Fold every such pair in eval mode; returns how many."""
    found = [
        (module, conv, norm)
        for module in model.modules()
        for conv, norm in _PAIRS.get(type(module), ())
        if isinstance(getattr(module, norm), BatchNormAct2d)
    ]
    for module, conv, norm in found:
        setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
        setattr(module, norm, getattr(module, norm).act)
    return len(found)

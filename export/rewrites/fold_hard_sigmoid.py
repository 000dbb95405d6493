"""The gate of MobileNetV3's squeeze-and-excitation as a clamp, which fuses into its convolution.

Before: `clamp(w s + b + 3, 0, 6) / 6` on (B, C, 1, 1), whose export adds scalars that are copied at
run time.
After: `clamp(w / 6 s + b / 6 + 1 / 2, 0, 1)`, one convolution with an output range.
"""

from __future__ import annotations

from timm.layers.activations import HardSigmoid
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import nn


def apply(model: nn.Module) -> int:
    """Fold every hard sigmoid behind a squeeze-and-excitation's convolution; returns how many."""
    found = [
        m
        for m in model.modules()
        if isinstance(m, SqueezeExcite) and isinstance(m.gate, (nn.Hardsigmoid, HardSigmoid))
    ]
    for block in found:
        conv = block.conv_expand
        conv.weight = nn.Parameter(conv.weight.detach() / 6, requires_grad=False)
        conv.bias = nn.Parameter(conv.bias.detach() / 6 + 0.5, requires_grad=False)
        block.gate = nn.Hardtanh(0.0, 1.0)
    return len(found)

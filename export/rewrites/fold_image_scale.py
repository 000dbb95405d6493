"""Fold `image / 255` into the layer that reads the image.

Before: `Normalized` with mean 0: (N, C, H, W), 0 to 255 -> `x * scale + 0` -> first layer.
After: (N, C, H, W), 0 to 255 -> first layer with weights `w * scale`; zeros that a convolution
pads with stay zeros. Not for half precision, whose smallest numbers such weights come close to.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from phoneward.export.models.normalize import Normalized


def apply(model: nn.Module) -> int:
    """Fold where the body names its `first_layer` and nothing is subtracted; returns how many."""
    count = 0
    for module in model.modules():
        if not isinstance(module, Normalized) or isinstance(module.normalize, nn.Identity):
            continue
        layer = getattr(module.body, "first_layer", None)
        scale, shift = cast(Tensor, module.normalize.scale), cast(Tensor, module.normalize.shift)
        if layer is None or scale.numel() != 1 or shift.any():
            continue
        with torch.no_grad():
            layer.weight.mul_(scale.item())
        module.normalize = nn.Identity()
        count += 1
    return count

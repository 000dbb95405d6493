"""The trunk while it keeps its weights: the same map, for less work."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import cast

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from phoneward.export.models.efficienttam.lite0_trunk import Lite0Trunk


class FrozenTrunk:
    """A copy of the trunk with its batch norms in the convolutions, its maps channels-last.

    On one core a third faster than the trunk itself (244 for 375 ms for 12 images of 192 x 192).
    """

    def __init__(self, trunk: Lite0Trunk) -> None:
        copied = copy.deepcopy(trunk).requires_grad_(False)
        for module in list(copied.modules()):
            _fold(module)
        self.trunk = copied.to(memory_format=torch.channels_last)

    def __call__(self, images: Tensor) -> Tensor:
        """Map normalised images (N, 3, H, W) to (N, 656, H / 16, W / 16)."""
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            return cast(Tensor, self.trunk(images, self.trunk.positions(0))).contiguous()


def _fold(module: nn.Module) -> None:
    """Put each batch norm of a module's children into the convolution before it."""
    children = list(module.named_children())
    for (first, convolution), (second, norm) in pairwise(children):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
            setattr(module, first, fuse_conv_bn_eval(convolution, norm))
            setattr(module, second, norm.act)

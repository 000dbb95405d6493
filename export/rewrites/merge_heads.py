"""One classifier for EfficientFormer's two, with the norm of V2 inside.

Before: `(head(p) + head_dist(p)) / 2` on `p` (B, C), the mean of the tokens (B, N, C), or for V2
of `BatchNorm2d(x)`, (B, C, H, W).
After: one `Linear` with the mean of both weights; V2's BatchNorm is affine in each channel, so it
commutes with the mean over pixels and folds into the `Linear`. The pooling keeps its axes as
ones, the form of a mean that every engine has.
"""

from __future__ import annotations

import torch
from timm.models.efficientformer import EfficientFormer
from timm.models.efficientformer_v2 import EfficientFormerV2
from torch import Tensor, nn

from phoneward.export.rewrites.token_attention import linear


class OneHeadEfficientFormer(EfficientFormer):
    """An EfficientFormer whose `head` is the mean of both."""

    def forward(self, x: Tensor) -> Tensor:
        """Classify (B, 3, H, W)."""
        logits: Tensor = self.head(self.forward_features(x).mean(dim=1))
        return logits


class OneHeadEfficientFormerV2(EfficientFormerV2):
    """An EfficientFormerV2 whose `head` is the mean of both and includes the final norm."""

    def forward(self, x: Tensor) -> Tensor:
        """Classify (B, 3, H, W)."""
        x = self.stages(self.stem(x)).mean((2, 3), keepdim=True)
        logits: Tensor = self.head(x.flatten(1))
        return logits


def apply(model: nn.Module) -> int:
    """Merge the heads of every EfficientFormer in eval mode; returns how many models."""
    found = [m for m in model.modules() if type(m) in (EfficientFormer, EfficientFormerV2)]
    return sum(_merge(network) for network in found)


def _merge(network: nn.Module) -> int:
    heads = [h for h in (network.head, network.head_dist) if isinstance(h, nn.Linear)]
    if not heads or network.global_pool != "avg":
        return 0
    weight = torch.stack([h.weight.detach() for h in heads]).mean(0)
    bias = torch.stack([h.bias.detach() for h in heads]).mean(0)
    if isinstance(network, EfficientFormerV2):
        norm = network.norm
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        bias = bias + weight @ (norm.bias.detach() - norm.running_mean * scale)
        weight = weight * scale
        network.norm = nn.Identity()
        network.__class__ = OneHeadEfficientFormerV2
    else:
        network.__class__ = OneHeadEfficientFormer
    network.head = linear(weight, bias)
    network.head_dist = nn.Identity()
    return 1

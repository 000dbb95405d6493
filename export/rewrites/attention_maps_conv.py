"""EfficientFormerV2's attention with talking heads as convolutions, in rank 4.

Before and after as in `attention_maps`, except that products are (1, h, N, M) and a talking head
stays the 1x1 convolution that it was, with its bias only behind the softmax: no reshapes around
it. For Core ML; the XNNPACK delegate of ExecuTorch 1.5 computes this wrongly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from phoneward.export.rewrites.attention_maps import MapAttention, replace_attention


class ConvMapAttention(MapAttention):
    """(1, C, H, W) -> (1, C', H', W'), see `MapAttention`."""

    def _talk(self, weight: Tensor) -> nn.Module:
        heads = weight.shape[0]
        conv = nn.Conv2d(heads, heads, 1, bias=False)
        conv.weight = nn.Parameter(weight[:, :, None, None].clone(), requires_grad=False)
        return conv

    def _split(self, x: Tensor, pixels: int) -> Tensor:
        return x.reshape(1, self.heads, -1, pixels)

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.matmul(a, b)


def apply(model: nn.Module) -> int:
    """Replace every attention of EfficientFormerV2; returns how many."""
    return replace_attention(model, ConvMapAttention)

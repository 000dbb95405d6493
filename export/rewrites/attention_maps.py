"""EfficientFormerV2's attention on feature maps, as rank-3 products with constant position bias.

Before: (B, C, H, W) -> rank-4 `q @ k` scaled, bias gathered by int64 indices into a cache that
`forward` fills, 1x1 convolutions over heads around the softmax, (B, heads, N, e) transposed back.
After, with B = 1 and heads h: q (h, N, d) scaled by its weights, k (h, d, M) as its convolution
emits it, `bmm`, the bias a (h, N, M) buffer. A talking head is a `bmm` of (1, h, h) with
(1, h, N * M): as a convolution its layout made ExecuTorch 1.5's XNNPACK delegate take the softmax
over heads. The first one's bias drops out of the softmax and its weights are applied to the
position bias beforehand. Values enter as (h, e, M) and meet the transposed attention, so that the
product is (h * e, N), a feature map, without a further transpose. The query's stride-2 pooling of
single pixels is one added to the centre of the depthwise kernel beside it.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from timm.models.efficientformer_v2 import Attention2d, Attention2dDownsample, LocalGlobalQuery
from torch import Tensor, nn

from phoneward.export.rewrites.fuse_conv_norm import fused
from phoneward.export.rewrites.modules import replace


class MapAttention(nn.Module):
    """(1, C, H, W) -> (1, C', H', W') from an `Attention2d` or `Attention2dDownsample`."""

    def __init__(self, source: Attention2d | Attention2dDownsample) -> None:
        super().__init__()
        self.heads = source.num_heads
        self.query = _query(source)
        self.key = _without_bias(_fused(source.k))
        self.value = _fused(source.v)
        self.local = _fused(source.v_local)
        self.proj = _fused(source.proj)
        self.act = source.act
        self.stride_conv = _fused(source.stride_conv) if _has(source, "stride_conv") else None
        self.upsample = source.upsample if _has(source, "upsample") else None
        position = source.attention_biases.detach()[:, source.attention_bias_idxs]
        self.talking = hasattr(source, "talking_head1")
        if self.talking:
            before = source.talking_head1.weight.detach()[None, :, :, 0, 0]
            position = torch.bmm(before, position.flatten(1)[None]).view_as(position)
            self.register_buffer("mix_before", before.clone())
            self.register_buffer(
                "mix_after", source.talking_head2.weight.detach()[None, :, :, 0, 0].clone()
            )
            self.register_buffer(
                "shift_after", source.talking_head2.bias.detach().view(-1, 1, 1).clone()
            )
        self.register_buffer("position_bias", position.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Attend from every (strided) pixel to every pixel."""
        if self.stride_conv is not None:
            x = self.stride_conv(x)
        value = self.value(x)
        local = self.local(value)
        heads = self.heads
        q = self.query(x).reshape(heads, -1, self.position_bias.shape[1]).transpose(1, 2)
        k = self.key(x).reshape(heads, -1, self.position_bias.shape[2])
        weights = self._attention(torch.bmm(q, k)).transpose(1, 2)
        mixed = torch.bmm(value.reshape(heads, -1, weights.shape[1]), weights)
        x = mixed.reshape(local.shape) + local
        if self.upsample is not None:
            x = self.upsample(x)
        out: Tensor = self.proj(self.act(x))
        return out

    def _attention(self, logits: Tensor) -> Tensor:
        shape = logits.shape
        if not self.talking:
            return (logits + self.position_bias).softmax(-1)
        flat = (1, self.heads, -1)
        logits = torch.bmm(self.mix_before, logits.reshape(flat)).reshape(shape)
        weights = (logits + self.position_bias).softmax(-1)
        return torch.bmm(self.mix_after, weights.reshape(flat)).reshape(shape) + self.shift_after


def apply(model: nn.Module) -> int:
    """Replace every attention of EfficientFormerV2; returns how many."""
    return replace(model, Attention2d, MapAttention) + replace(
        model, Attention2dDownsample, MapAttention
    )


def _has(source: nn.Module, name: str) -> bool:
    return getattr(source, name, None) is not None


def _fused(pair: nn.Module) -> nn.Conv2d:
    return fused(pair.conv, pair.bn)


def _query(source: nn.Module) -> nn.Module:
    if not isinstance(source.q, LocalGlobalQuery):
        return _scaled(_fused(source.q), source.scale)
    local = deepcopy(source.q.local)
    centre = local.weight.shape[-1] // 2
    with torch.no_grad():
        local.weight[:, :, centre, centre] += 1
    return nn.Sequential(local, _scaled(_fused(source.q.proj), source.scale))


def _scaled(conv: nn.Conv2d, scale: float) -> nn.Conv2d:
    conv = deepcopy(conv)
    with torch.no_grad():
        conv.weight.mul_(scale)
        conv.bias.mul_(scale)
    return conv


def _without_bias(conv: nn.Conv2d) -> nn.Conv2d:
    conv = deepcopy(conv)
    conv.bias = None
    return conv

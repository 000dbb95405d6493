"""EfficientFormerV2's attention on feature maps, as rank-3 products with constant position bias.

Before: (B, C, H, W) -> rank-4 `q @ k` scaled, bias gathered by int64 indices into a cache that
`forward` fills, 1x1 convolutions over heads around the softmax, (B, heads, N, e) transposed back.
After, with B = 1 and heads h: q (h, N, d) scaled by its weights, k (h, d, M) as its convolution
emits it, `bmm`, the bias a (h, N, M) buffer. Values enter as (h, e, M) and meet the transposed
attention, so that the product is (h * e, N), a feature map, without a further transpose. A talking
head is a `bmm` of (1, h, h) with (1, h, N * M): as a convolution its layout makes the XNNPACK
delegate of ExecuTorch 1.5 take the softmax over heads.

The first talking head's bias drops out of the softmax, as does the key's, and its weights are
applied to the position bias beforehand. The query's stride-2 pooling of single pixels is one added
to the centre of the depthwise kernel beside it.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from timm.models.efficientformer_v2 import Attention2d, Attention2dDownsample, LocalGlobalQuery
from torch import Tensor, nn

from phoneward.export.rewrites.fuse_conv_norm import fused
from phoneward.export.rewrites.modules import replace


class Talk(nn.Module):
    """(h, N, M) -> (h, N, M), each head a mixture of all heads."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight[None].clone())

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the (1, h, h) weights."""
        heads = x.shape[0]
        mixed: Tensor = torch.bmm(self.weight, x.reshape(1, heads, -1)).reshape(x.shape)
        return mixed


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
        self.stride_conv = self.upsample = None
        if getattr(source, "stride_conv", None) is not None:
            self.stride_conv, self.upsample = _fused(source.stride_conv), source.upsample
        bias = source.attention_biases.detach()[:, source.attention_bias_idxs]
        self.talk_before = self.talk_after = None
        if hasattr(source, "talking_head1"):
            before, after = (
                talk.weight.detach()[:, :, 0, 0]
                for talk in (source.talking_head1, source.talking_head2)
            )
            bias = torch.einsum("gh,hnm->gnm", before, bias)
            self.talk_before, self.talk_after = self._talk(before), self._talk(after)
            shift = source.talking_head2.bias.detach().view(-1, 1, 1)
            self.register_buffer("shift", shift.clone())
        self.register_buffer("position_bias", bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Attend from every (strided) pixel to every pixel."""
        if self.stride_conv is not None:
            x = self.stride_conv(x)
        value = self.value(x)
        local = self.local(value)
        _, queries, keys = self.position_bias.shape
        weights = self._weights(
            self._split(self.query(x), queries).transpose(-2, -1), self._split(self.key(x), keys)
        )
        mixed = self._product(self._split(value, keys), weights.transpose(-2, -1))
        x = mixed.reshape(local.shape) + local
        if self.upsample is not None:
            x = self.upsample(x)
        out: Tensor = self.proj(self.act(x))
        return out

    def _weights(self, q: Tensor, k: Tensor) -> Tensor:
        logits = self._product(q, k)
        if self.talk_before is None or self.talk_after is None:
            return (logits + self.position_bias).softmax(-1)
        weights = (self.talk_before(logits) + self.position_bias).softmax(-1)
        mixed: Tensor = self.talk_after(weights) + self.shift
        return mixed

    def _talk(self, weight: Tensor) -> nn.Module:
        return Talk(weight)

    def _split(self, x: Tensor, pixels: int) -> Tensor:
        return x.reshape(self.heads, -1, pixels)

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.bmm(a, b)


def apply(model: nn.Module) -> int:
    """Replace every attention of EfficientFormerV2; returns how many."""
    return replace_attention(model, MapAttention)


def replace_attention(model: nn.Module, new: type[MapAttention]) -> int:
    """Replace both kinds of EfficientFormerV2 attention by `new`; returns how many."""
    return sum(replace(model, old, new) for old in (Attention2d, Attention2dDownsample))


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

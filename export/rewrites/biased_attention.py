"""EfficientFormer's attention over tokens, with constant position bias.

Before: `qkv` (B, N, heads * (2d + e)) -> rank-4 reshape, permute and split; keys transposed at run
time; the product scaled; a bias gathered by int64 indices into a cache that `forward` fills.
After: three projections. Queries leave theirs as (heads, N, d), scaled by their weights; keys as
(heads, d, N); both products are rank-3 `bmm`s; the bias is a (heads, N, N) buffer. The key bias
drops out of the softmax (it adds the same to every key), the value bias passes through it (the
weights add up to one) into the output bias. B is 1.
"""

from __future__ import annotations

import torch
from timm.models.efficientformer import Attention
from torch import Tensor, nn

from phoneward.export.rewrites.modules import replace
from phoneward.export.rewrites.token_attention import linear


class BiasedAttention(nn.Module):
    """(1, N, C) -> (1, N, C)."""

    def __init__(self, source: Attention) -> None:
        super().__init__()
        self.heads, self.key_dim, self.value_dim = source.num_heads, source.key_dim, source.val_dim
        # rows of a head are its queries, keys and values, in this order
        sizes = [self.key_dim, self.key_dim, self.value_dim]
        weight = source.qkv.weight.detach().unflatten(0, (self.heads, -1)).split(sizes, dim=1)
        bias = source.qkv.bias.detach().unflatten(0, (self.heads, -1)).split(sizes, dim=1)
        self.query = linear(
            weight[0].flatten(0, 1) * source.scale, bias[0].flatten() * source.scale
        )
        self.key = linear(weight[1].flatten(0, 1), None)
        self.value = linear(weight[2].flatten(0, 1), None)
        out = source.proj.weight.detach()
        self.proj = linear(out, source.proj.bias.detach() + out @ bias[2].flatten())
        position = source.attention_biases.detach()[:, source.attention_bias_idxs]
        self.register_buffer("position_bias", position.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Attend among the N tokens."""
        tokens = x.shape[1]
        q = self.query(x).reshape(tokens, self.heads, self.key_dim).permute(1, 0, 2)
        k = self.key(x).reshape(tokens, self.heads, self.key_dim).permute(1, 2, 0)
        v = self.value(x).reshape(tokens, self.heads, self.value_dim).permute(1, 0, 2)
        attention = (torch.bmm(q, k) + self.position_bias).softmax(-1)
        mixed = torch.bmm(attention, v).permute(1, 0, 2)
        out: Tensor = self.proj(mixed.reshape(1, tokens, self.heads * self.value_dim))
        return out


def apply(model: nn.Module) -> int:
    """Replace every EfficientFormer `Attention`; returns how many."""
    return replace(model, Attention, BiasedAttention)

"""Multi-head self-attention over tokens, spelt out for engines without a fused kernel.

Before: one projection to (B, N, 3, heads, d), a rank-5 permute, `scaled_dot_product_attention`
(whose export adds expands, a mask test and `k` transposed at run time).
After: three projections, one rank-4 permute each; keys leave theirs as (heads, d, N), so that both
products are plain `bmm`s. Exact algebra moves constants into weights: the scale goes into the
query projection, the key bias drops out of the softmax (it adds the same to every key), the
value bias passes through it (the weights add up to one) into the output bias.
"""

from __future__ import annotations

import torch
from timm.layers import Attention
from torch import Tensor, nn


class TokenAttention(nn.Module):
    """(B, N, C) -> (B, N, C) from a timm `Attention` without mask, gate or inner norms."""

    def __init__(self, source: Attention) -> None:
        super().__init__()
        self.heads, self.head_dim = source.num_heads, source.head_dim
        width = self.heads * self.head_dim
        weights = source.qkv.weight.detach().split(width)
        bias = source.qkv.bias
        biases = (weights[0].new_zeros(3 * width) if bias is None else bias.detach()).view(3, width)
        self.query = linear(weights[0] * source.scale, biases[0] * source.scale)
        self.key = linear(weights[1], None)
        self.value = linear(weights[2], None)
        out = source.proj.weight.detach() @ biases[2]
        if source.proj.bias is not None:
            out = out + source.proj.bias.detach()
        self.proj = linear(source.proj.weight.detach(), out)

    def forward(self, x: Tensor) -> Tensor:
        """Attend among the N tokens of each of B groups."""
        groups, tokens, _ = x.shape
        split = (groups, tokens, self.heads, self.head_dim)
        rows = (groups * self.heads, tokens, self.head_dim)
        q = self.query(x).reshape(split).permute(0, 2, 1, 3).reshape(rows)
        k = self.key(x).reshape(split).permute(0, 2, 3, 1).reshape(rows[0], rows[2], rows[1])
        v = self.value(x).reshape(split).permute(0, 2, 1, 3).reshape(rows)
        mixed = torch.bmm(torch.bmm(q, k).softmax(-1), v)
        mixed = mixed.reshape(groups, self.heads, tokens, self.head_dim).permute(0, 2, 1, 3)
        out: Tensor = self.proj(mixed.reshape(groups, tokens, self.heads * self.head_dim))
        return out


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Make a `Linear` that holds these values; weight (out, in), bias (out,) or none."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone(), requires_grad=False)
    return layer

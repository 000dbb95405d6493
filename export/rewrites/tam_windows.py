"""EfficientTAM's image encoder with tokens in window order and padding as one key.

Exact, up to rounding:

- tokens are put in the order of the windows once, before the first block, and back after the last:
  everything in between but the windows themselves does not care about the order;
- a window that sticks out of the image is computed on its tokens inside alone. The padded ones
  have all the same key and value (the projections' biases), so one of them, with the logarithm of
  their number added to its logits, stands for all: 740 of 1,764 tokens less at 512 px.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from phoneward.export.models.efficienttam.image_encoder import WINDOW, Attention, Block
from phoneward.export.models.efficienttam.layers import LayerNorm2d, from_heads, to_heads
from phoneward.export.models.efficienttam.stages import Encode
from phoneward.export.rewrites.modules import linear, replace


def apply(model: nn.Module) -> int:
    """Replace every image encoder of `model`; returns how many there were."""
    return replace(model, Encode, OrderedEncode)


@dataclass(frozen=True)
class Group:
    """`windows` windows of `tokens` tokens, to each of which belong `padded` places outside."""

    windows: int
    tokens: int
    padded: int


class WindowOrder:
    """Tokens of a square grid: whole windows, then those cut at a side, then the corner."""

    def __init__(self, grid: int) -> None:
        self.grid = grid
        self.whole, self.rest = divmod(grid, WINDOW)
        self.inside = self.whole * WINDOW
        sizes = (
            (self.whole**2, WINDOW**2),
            (2 * self.whole, WINDOW * self.rest),
            (1, self.rest**2),
        )
        self.groups = tuple(
            Group(windows, tokens, WINDOW**2 - tokens) for windows, tokens in sizes if tokens
        )

    def apply(self, x: Tensor) -> Tensor:
        """(1, g, g, C) as tokens (1, T, C) in window order."""
        channels, n, inside = x.shape[-1], self.whole, self.inside
        blocks = x[:, :inside, :inside].reshape(n, WINDOW, n, WINDOW * channels).transpose(1, 2)
        parts = [blocks.reshape(1, -1, channels)]
        if self.rest:
            bottom = x[:, inside:, :inside].reshape(self.rest, n, WINDOW * channels)
            parts += [
                x[:, :inside, inside:].reshape(1, -1, channels),
                bottom.transpose(0, 1).reshape(1, -1, channels),
                x[:, inside:, inside:].reshape(1, -1, channels),
            ]
        return torch.cat(parts, dim=1)

    def undo(self, tokens: Tensor) -> Tensor:
        """Tokens (1, T, C) in window order as (1, g, g, C)."""
        channels, n, inside = tokens.shape[-1], self.whole, self.inside
        side = inside * self.rest
        lengths = [inside * inside, side, side, self.rest**2]
        blocks, right, bottom, corner = tokens.split(lengths, dim=1)
        blocks = blocks.reshape(n, n, WINDOW, WINDOW * channels).transpose(1, 2)
        blocks = blocks.reshape(1, inside, inside, channels)
        if not self.rest:
            return blocks
        bottom = bottom.reshape(n, self.rest, WINDOW * channels).transpose(0, 1)
        upper = torch.cat((blocks, right.reshape(1, inside, self.rest, channels)), dim=2)
        lower = torch.cat(
            (
                bottom.reshape(1, self.rest, inside, channels),
                corner.reshape(1, self.rest, self.rest, channels),
            ),
            dim=2,
        )
        return torch.cat((upper, lower), dim=1)


class OrderedEncode(nn.Module):
    """`Encode` in other words: the same inputs and outputs."""

    def __init__(self, encode: Encode) -> None:
        super().__init__()
        trunk, steps = encode.encoder.trunk, encode.encoder.neck.convs[0]
        self.patch_embed = trunk.patch_embed
        self.register_buffer("positions", encode.positions)
        self.order = WindowOrder(encode.positions.shape[1])
        self.blocks = nn.ModuleList(OrderedBlock(block, self.order) for block in trunk.blocks)
        self.neck_in = linear(steps.conv_1x1.weight.flatten(1), None)
        self.neck_norm = token_norm(steps.norm_0)
        self.neck_mix = steps.conv_3x3
        self.neck_out = token_norm(steps.norm_1)

    def forward(self, image: Tensor) -> Tensor:
        """Map a normalised (1, 3, S, S) image to features (1, T, 256)."""
        x = self.order.apply(self.patch_embed(image) + self.positions)
        for block in self.blocks:
            x = block(x)
        x = self.order.undo(self.neck_norm(self.neck_in(x)))
        x = self.neck_mix(x.permute(0, 3, 1, 2))
        return cast(Tensor, self.neck_out(x.flatten(2).transpose(1, 2)))


def token_norm(norm: LayerNorm2d) -> nn.LayerNorm:
    """The norm of a map's channels as one of tokens."""
    made = nn.LayerNorm(norm.weight.shape[0], eps=norm.eps)
    made.weight, made.bias = norm.weight, norm.bias
    return made.requires_grad_(False)


class OrderedBlock(nn.Module):
    """Attention, in windows or over all tokens, and MLP."""

    def __init__(self, block: Block, order: WindowOrder) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mlp = block.norm1, block.norm2, block.mlp
        groups = order.groups if block.windowed else (Group(1, order.grid**2, 0),)
        self.attention = GroupedAttention(block.attn, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (1, T, C) in window order to themselves."""
        x = x + self.attention(self.norm1(x))
        return cast(Tensor, x + self.mlp(self.norm2(x)))


class GroupedAttention(nn.Module):
    """Multi-head attention within each window of each group; heads are the first axis throughout.

    Windows are slices of the tokens, so that one permutation of each of queries, keys and values
    serves them all.
    """

    def __init__(self, attention: Attention, groups: tuple[Group, ...]) -> None:
        super().__init__()
        weights, biases = attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3)
        scale = 1 / math.sqrt(weights[0].shape[0] // attention.heads)
        self.heads = attention.heads
        self.q = linear(weights[0] * scale, biases[0] * scale)
        self.k, self.v = linear(weights[1], biases[1]), linear(weights[2], biases[2])
        self.proj = attention.proj
        self.lengths = [group.windows * group.tokens for group in groups]
        self.windows = nn.ModuleList(Windows(attention, group) for group in groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, T, C) to itself."""
        q, k, v = (to_heads(projection(x), self.heads) for projection in (self.q, self.k, self.v))
        if len(self.windows) == 1:
            mixed = self.windows[0](q, k, v)
        else:
            parts = (part.split(self.lengths, dim=1) for part in (q, k, v))
            pieces = [mix(*qkv) for mix, *qkv in zip(self.windows, *parts, strict=True)]
            mixed = torch.cat(pieces, dim=1)
        return cast(Tensor, self.proj(from_heads(mixed, self.heads)))


class Windows(nn.Module):
    """Attention within each window of one group."""

    def __init__(self, attention: Attention, group: Group) -> None:
        super().__init__()
        self.group = group
        if group.padded:
            _, key, value = attention.qkv.bias.detach().view(3, attention.heads, 1, -1)
            logits = torch.zeros(1, 1, group.tokens + 1)
            logits[..., -1] = math.log(group.padded)
            self.register_buffer("key", key.repeat_interleave(group.windows, dim=0))
            self.register_buffer("value", value.repeat_interleave(group.windows, dim=0))
            self.register_buffer("logits", logits)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Map queries, keys and values (heads, windows * tokens, d) to the same shape."""
        heads, length, depth = q.shape
        shape = heads * self.group.windows, self.group.tokens, depth
        q, k, v = q.reshape(shape), k.reshape(shape), v.reshape(shape)
        if self.group.padded:
            k = torch.cat((k, cast(Tensor, self.key)), dim=1)
            v = torch.cat((v, cast(Tensor, self.value)), dim=1)
            logits = torch.bmm(q, k.transpose(1, 2)) + cast(Tensor, self.logits)
        else:
            logits = torch.bmm(q, k.transpose(1, 2))
        return torch.bmm(logits.softmax(-1), v).reshape(heads, length, depth)

"""Memory attention: the features of a frame look at what was remembered of earlier ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from phoneward.export.models.efficienttam.layers import (
    EMPTY,
    attend,
    one_hot,
    rotary_tables,
    rotate,
    sine_positions,
)
from phoneward.export.models.efficienttam.variants import (
    POOL,
    POOLED,
    TEMPORAL_CODES,
    Variant,
)


@dataclass(frozen=True)
class Bank:
    """What is attended to, ready for every layer.

    `keys` and `values` are (N, slots * T, M), keys with their positions added; `pointers`
    (N, P, M) or None. `valid` is (N, slots) of 0 and 1, `pointer_bias` (N, 1, P) is added to
    the pointers' logits.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor
    pointers: Tensor | None = None
    pointer_bias: Tensor | None = None


class Projections(nn.Module):
    """The four linear maps of an attention with one head."""

    def __init__(self, channels: int, memory_width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(memory_width, channels)
        self.v_proj = nn.Linear(memory_width, channels)
        self.out_proj = nn.Linear(channels, channels)


class SelfAttention(Projections):
    """Attention within the frame; queries and keys carry the rotary code."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Map (N, T, C) to itself; the tables are (T, C)."""
        q = rotate(self.q_proj(x), cosines, sines)
        k = rotate(self.k_proj(x), cosines, sines)
        return cast(Tensor, self.out_proj(attend(q, k, self.v_proj(x))))


class CrossAttention(Projections):
    """Attention to the bank; the keys of memories carry the rotary code, those of pointers none.

    With pooling (paper, section 3.2), keys and values of each memory are averaged 2 x 2 after the
    rotation, and ln 4 is added to the logits (`"logits"`) or to the pooled keys (`"keys"`). As
    in the official code, a bank with exactly one memory, which is then in slot 0, is not pooled.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant.widths.channels, variant.widths.memory)
        self.variant = variant

    def forward(self, x: Tensor, bank: Bank, cosines: Tensor, sines: Tensor) -> Tensor:
        """Map (N, T, C) to itself; the tables are (T, C)."""
        slots = self.variant.slots
        q = rotate(self.q_proj(x), cosines, sines)
        keys = self.k_proj(bank.keys)
        keys = rotate(keys, cosines.repeat(slots, 1), sines.repeat(slots, 1))
        values, bias = self.v_proj(bank.values), self._spread(bank.valid, self.variant.tokens)
        if self.variant.pooling is not None:
            keys, values, bias = self._pooled(keys, values, bank.valid)
        if bank.pointers is not None and bank.pointer_bias is not None:
            keys = torch.cat((keys, self.k_proj(bank.pointers)), dim=1)
            values = torch.cat((values, self.v_proj(bank.pointers)), dim=1)
            bias = torch.cat((bias, bank.pointer_bias), dim=2)
        return cast(Tensor, self.out_proj(attend(q, keys, values, bias)))

    def _spread(self, valid: Tensor, each: int) -> Tensor:
        bias = (1 - valid).unsqueeze(-1) * EMPTY
        return bias.expand(-1, -1, each).flatten(1).unsqueeze(1)

    def _pooled(self, keys: Tensor, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pool, or take slot 0 as it is where it is alone."""
        tokens, each = self.variant.tokens, self.variant.tokens // POOLED
        log = math.log(POOLED)
        pooled_keys, pooled_values = self._pool(keys), self._pool(values)
        bias = self._spread(valid, each)
        if self.variant.pooling == "logits":
            bias = bias + log
        else:
            pooled_keys = pooled_keys + log
        alone = torch.clamp(2 - valid.sum(1), 0, 1).view(-1, 1, 1)
        length = max(tokens, each * self.variant.slots)
        kept = torch.zeros(1, 1, length, dtype=keys.dtype)
        kept[..., tokens:] = EMPTY
        return (
            _blend(alone, _padded(keys[:, :tokens], length), _padded(pooled_keys, length)),
            _blend(alone, _padded(values[:, :tokens], length), _padded(pooled_values, length)),
            _blend(alone, kept, _padded(bias, length, EMPTY)),
        )

    def _pool(self, x: Tensor) -> Tensor:
        batch, length, channels = x.shape
        rows = x.reshape(batch * length // self.variant.grid // POOL, POOL, -1).mean(1)
        pairs = rows.reshape(batch * length // POOLED, POOL, channels).mean(1)
        return pairs.unflatten(0, (batch, -1))


def _blend(share: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return share * one + (1 - share) * other


def _padded(x: Tensor, length: int, value: float = 0.0) -> Tensor:
    """Lengthen (B, N, C), or a bias (B, 1, N), to `length` keys."""
    axis = 2 if x.shape[1] == 1 else 1
    shape = list(x.shape)
    shape[axis] = length - shape[axis]
    return torch.cat((x, torch.full(shape, value, dtype=x.dtype)), dim=axis) if shape[axis] else x


class Layer(nn.Module):
    """Self-attention, cross-attention and a feed-forward net, each after a norm."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        channels, inner = variant.widths.channels, variant.widths.feed_forward
        self.self_attn = SelfAttention(channels)
        self.cross_attn_image = CrossAttention(variant)
        self.linear1 = nn.Linear(channels, inner)
        self.linear2 = nn.Linear(inner, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, bank: Bank, cosines: Tensor, sines: Tensor) -> Tensor:
        """Map (N, T, C) to itself; the tables are (T, C)."""
        x = x + self.self_attn(self.norm1(x), cosines, sines)
        x = x + self.cross_attn_image(self.norm2(x), bank, cosines, sines)
        return cast(Tensor, x + self.linear2(self.linear1(self.norm3(x)).relu()))


class MemoryAttention(nn.Module):
    """A few layers and a norm."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(variant) for _ in range(variant.widths.layers))
        self.norm = nn.LayerNorm(variant.widths.channels)

    def forward(self, x: Tensor, bank: Bank, cosines: Tensor, sines: Tensor) -> Tensor:
        """Map features with their positions (N, T, C) to conditioned features."""
        for layer in self.layers:
            x = layer(x, bank, cosines, sines)
        return cast(Tensor, self.norm(x))


class MemoryReader(nn.Module):
    """The host's arrays, read by memory attention: features to conditioned features.

    `memory_age` is 0 for a conditioning frame, n for the frame n steps back, -1 for an empty slot,
    whose content, if it is finite, has no effect at all.
    """

    def __init__(self, variant: Variant, attention: MemoryAttention, temporal: Tensor) -> None:
        super().__init__()
        self.variant, self.attention = variant, attention
        grid, channels, width = variant.grid, variant.widths.channels, variant.widths.memory
        cosines, sines = rotary_tables(grid, channels)
        # the official table has the frame before first and conditioning frames last
        codes = torch.cat((temporal[-1:], temporal[:-1]))
        self.register_buffer("codes", codes.reshape(TEMPORAL_CODES, width))
        self.register_buffer("positions", 0.1 * sine_positions(grid, channels))
        self.register_buffer("places", sine_positions(grid, width))
        self.register_buffer("cosines", cosines)
        self.register_buffer("sines", sines)

    def forward(self, features: Tensor, memory: Tensor, age: Tensor, *pointers: Tensor) -> Tensor:
        """Map features (N, T, C) to conditioned features of the same shape.

        Takes memory (N, M, slots * T), ages (N, slots), and where the variant reads pointers,
        those (N, 16, C) and which of them are valid (N, 16).
        """
        bank = self._bank(memory, age, *pointers)
        x = features + cast(Tensor, self.positions)
        return cast(Tensor, self.attention(x, bank, self.cosines, self.sines))

    def _bank(self, memory: Tensor, age: Tensor, *pointers: Tensor) -> Bank:
        slots, tokens, width = self.variant.slots, self.variant.tokens, self.variant.widths.memory
        full = torch.clamp(age + 1, 0, 1)
        codes = one_hot(age, 0, TEMPORAL_CODES) @ cast(Tensor, self.codes)
        values = memory.transpose(1, 2).reshape(-1, tokens, width)
        values = values * full.view(-1, 1, 1)
        keys = values + cast(Tensor, self.places) + codes.reshape(-1, 1, width)
        shape = (-1, slots * tokens, width)
        if not self.variant.pointers:
            return Bank(keys.reshape(shape), values.reshape(shape), full)
        found, valid = pointers
        parts = found.shape[-1] // width
        present = (found * valid.unsqueeze(-1)).unflatten(-1, (parts, width)).flatten(1, 2)
        bias = ((1 - valid).unsqueeze(-1) * EMPTY).expand(-1, -1, parts).flatten(1).unsqueeze(1)
        return Bank(keys.reshape(shape), values.reshape(shape), full, present, bias)

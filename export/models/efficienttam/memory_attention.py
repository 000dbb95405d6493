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
    CHANNELS,
    MEMORY_CHANNELS,
    POOL,
    POOLED,
    TEMPORAL_CODES,
    Variant,
)

_LAYERS = 4
_FEED_FORWARD = 2048


@dataclass(frozen=True)
class Bank:
    """What is attended to, ready for every layer.

    `keys` and `values` are (1, slots * T, 64), keys with their positions added; `pointers`
    (1, 64, 64) or None. `valid` is (1, slots) of 0 and 1, `pointer_bias` (1, 1, 64) is added to
    the pointers' logits.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor
    pointers: Tensor | None = None
    pointer_bias: Tensor | None = None


class Projections(nn.Module):
    """The four linear maps of an attention with one head."""

    def __init__(self, memory_width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(CHANNELS, CHANNELS)
        self.k_proj = nn.Linear(memory_width, CHANNELS)
        self.v_proj = nn.Linear(memory_width, CHANNELS)
        self.out_proj = nn.Linear(CHANNELS, CHANNELS)


class SelfAttention(Projections):
    """Attention within the frame; queries and keys carry the rotary code."""

    def __init__(self) -> None:
        super().__init__(CHANNELS)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Map (1, T, 256) to itself; the tables are (T, 256)."""
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
        super().__init__(MEMORY_CHANNELS)
        self.variant = variant

    def forward(self, x: Tensor, bank: Bank, cosines: Tensor, sines: Tensor) -> Tensor:
        """Map (1, T, 256) to itself; the tables are (T, 256)."""
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
        return bias.expand(1, self.variant.slots, each).reshape(1, 1, -1)

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
        alone = torch.clamp(2 - valid.sum(1), 0, 1).view(1, 1, 1)
        length = max(tokens, each * self.variant.slots)
        kept = torch.zeros(1, 1, length, dtype=keys.dtype)
        kept[..., tokens:] = EMPTY
        return (
            _blend(alone, _padded(keys[:, :tokens], length), _padded(pooled_keys, length)),
            _blend(alone, _padded(values[:, :tokens], length), _padded(pooled_values, length)),
            _blend(alone, kept, _padded(bias, length, EMPTY)),
        )

    def _pool(self, x: Tensor) -> Tensor:
        half, channels = self.variant.grid // POOL, x.shape[-1]
        rows = x.reshape(self.variant.slots * half, POOL, -1).mean(1)
        pairs = rows.reshape(self.variant.slots * half * half, POOL, channels).mean(1)
        return pairs.unsqueeze(0)


def _blend(share: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return share * one + (1 - share) * other


def _padded(x: Tensor, length: int, value: float = 0.0) -> Tensor:
    """Lengthen (1, N, C), or a bias (1, 1, N), to `length` keys."""
    axis = 2 if x.shape[1] == 1 else 1
    shape = list(x.shape)
    shape[axis] = length - shape[axis]
    return torch.cat((x, torch.full(shape, value, dtype=x.dtype)), dim=axis) if shape[axis] else x


class Layer(nn.Module):
    """Self-attention, cross-attention and a feed-forward net, each after a norm."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.self_attn = SelfAttention()
        self.cross_attn_image = CrossAttention(variant)
        self.linear1 = nn.Linear(CHANNELS, _FEED_FORWARD)
        self.linear2 = nn.Linear(_FEED_FORWARD, CHANNELS)
        self.norm1 = nn.LayerNorm(CHANNELS)
        self.norm2 = nn.LayerNorm(CHANNELS)
        self.norm3 = nn.LayerNorm(CHANNELS)

    def forward(self, x: Tensor, bank: Bank, cosines: Tensor, sines: Tensor) -> Tensor:
        """Map (1, T, 256) to itself; the tables are (T, 256)."""
        x = x + self.self_attn(self.norm1(x), cosines, sines)
        x = x + self.cross_attn_image(self.norm2(x), bank, cosines, sines)
        return cast(Tensor, x + self.linear2(self.linear1(self.norm3(x)).relu()))


class MemoryAttention(nn.Module):
    """Four layers and a norm."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(variant) for _ in range(_LAYERS))
        self.norm = nn.LayerNorm(CHANNELS)

    def forward(self, x: Tensor, bank: Bank, cosines: Tensor, sines: Tensor) -> Tensor:
        """Map features with their positions (1, T, 256) to conditioned features."""
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
        grid = variant.grid
        cosines, sines = rotary_tables(grid, CHANNELS)
        # the official table has the frame before first and conditioning frames last
        codes = torch.cat((temporal[-1:], temporal[:-1]))
        self.register_buffer("codes", codes.detach().reshape(TEMPORAL_CODES, MEMORY_CHANNELS))
        self.register_buffer("positions", 0.1 * sine_positions(grid, CHANNELS))
        self.register_buffer("places", sine_positions(grid, MEMORY_CHANNELS))
        self.register_buffer("cosines", cosines)
        self.register_buffer("sines", sines)

    def forward(self, features: Tensor, memory: Tensor, age: Tensor, *pointers: Tensor) -> Tensor:
        """Map features (1, T, 256) to conditioned features of the same shape.

        Takes memory (1, 64, slots * T), ages (1, slots), and where the variant reads pointers,
        those (1, 16, 256) and which of them are valid (1, 16).
        """
        bank = self._bank(memory, age, *pointers)
        x = features + cast(Tensor, self.positions)
        return cast(Tensor, self.attention(x, bank, self.cosines, self.sines))

    def _bank(self, memory: Tensor, age: Tensor, *pointers: Tensor) -> Bank:
        slots, tokens = self.variant.slots, self.variant.tokens
        full = torch.clamp(age + 1, 0, 1)
        codes = one_hot(age, 0, TEMPORAL_CODES) @ cast(Tensor, self.codes)
        values = memory.transpose(1, 2).reshape(slots, tokens, MEMORY_CHANNELS)
        values = values * full.view(slots, 1, 1)
        keys = values + cast(Tensor, self.places) + codes.view(slots, 1, MEMORY_CHANNELS)
        shape = (1, slots * tokens, MEMORY_CHANNELS)
        if not self.variant.pointers:
            return Bank(keys.reshape(shape), values.reshape(shape), full)
        found, valid = pointers
        present = (found * valid.unsqueeze(-1)).reshape(1, -1, MEMORY_CHANNELS)
        parts = CHANNELS // MEMORY_CHANNELS
        bias = ((1 - valid).unsqueeze(-1) * EMPTY).expand(1, -1, parts).reshape(1, 1, -1)
        return Bank(keys.reshape(shape), values.reshape(shape), full, present, bias)

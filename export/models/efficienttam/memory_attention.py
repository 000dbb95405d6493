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
    WHOLE,
    Variant,
)

LOG_POOLED = math.log(POOLED)
"""What a pool's logit lacks for the four keys that it stands for."""


@dataclass(frozen=True)
class Bank:
    """What is attended to, ready for every layer.

    `keys` (N, slots * T, M) have their positions added. `values` (N, L + P, M) and `bias`
    (N, 1, L + P), which is added to the logits, are as keys will be once they are pooled: L is
    slots * T without pooling. `pointers` are (N, P, M) or None. `alone` (N, 1, 1) is 1 where
    there is exactly one memory, in slot 0.
    """

    keys: Tensor
    values: Tensor
    bias: Tensor
    alone: Tensor
    pointers: Tensor | None = None


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

    Rows of attention sum to one, so that values are mixed in a memory's few channels, and projected
    then.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant.widths.channels, variant.widths.memory)
        self.slots = variant.slots
        self.pool = pool_of(variant)

    def forward(self, x: Tensor, bank: Bank, cosines: Tensor, sines: Tensor) -> Tensor:
        """Map (N, T, C) to itself; the tables are (T, C)."""
        q = rotate(self.q_proj(x), cosines, sines)
        keys = self.k_proj(bank.keys)
        keys = rotate(keys, cosines.repeat(self.slots, 1), sines.repeat(self.slots, 1))
        if self.pool is not None:
            keys = self.pool.keys(keys, bank.alone)
        if bank.pointers is not None:
            keys = torch.cat((keys, self.k_proj(bank.pointers)), dim=1)
        mixed = attend(q, keys, bank.values, bank.bias)
        return cast(Tensor, self.out_proj(self.v_proj(mixed)))


class Pool(nn.Module):
    """Averages the places of each memory 2 x 2 (paper, section 3.2), keys after their rotation.

    As in the official code, a bank with exactly one memory, which is then in slot 0, is not pooled.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.grid, self.tokens = variant.grid, variant.tokens
        self.length = max(variant.tokens, variant.slots * variant.tokens // POOLED)
        self.to_keys = LOG_POOLED if variant.pooling == "keys" else 0.0
        self.to_logits = LOG_POOLED if variant.pooling == "logits" else 0.0

    def keys(self, x: Tensor, alone: Tensor) -> Tensor:
        """Map (N, slots * T, C) to (N, L, C)."""
        return self._pooled(x, alone, self.to_keys)

    def values(self, x: Tensor, alone: Tensor) -> Tensor:
        """Map (N, slots * T, M) to (N, L, M)."""
        return self._pooled(x, alone, 0.0)

    def bias(self, valid: Tensor, alone: Tensor) -> Tensor:
        """Map `valid` (N, slots) to (N, L, 1): what is added to the keys' logits."""
        pooled = self._padded(_spread(valid, self.tokens // POOLED) + self.to_logits, EMPTY)
        kept = torch.zeros(1, self.length, 1, dtype=pooled.dtype)
        kept[:, self.tokens :] = EMPTY
        return alone * kept + (1 - alone) * pooled

    def _pooled(self, x: Tensor, alone: Tensor, added: float) -> Tensor:
        first, *others = _parts(x, self.tokens)
        pooled = torch.cat([_averaged(part, self.grid) for part in (first, *others)], dim=1)
        return alone * self._padded(first) + (1 - alone) * self._padded(pooled + added)

    def _padded(self, x: Tensor, value: float = 0.0) -> Tensor:
        missing = self.length - x.shape[1]
        if not missing:
            return x
        return torch.cat((x, x.new_full((x.shape[0], missing, x.shape[2]), value)), dim=1)


class OlderPool(nn.Module):
    """Averages as `Pool` does, but leaves the first two slots whole."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.grid, self.tokens = variant.grid, variant.tokens

    def keys(self, x: Tensor, alone: Tensor) -> Tensor:
        """Map (N, slots * T, C) to (N, L, C)."""
        first, *others = _parts(x, WHOLE * self.tokens)
        return torch.cat([first, *(_averaged(part, self.grid) for part in others)], dim=1)

    def values(self, x: Tensor, alone: Tensor) -> Tensor:
        """Map (N, slots * T, M) to (N, L, M)."""
        return self.keys(x, alone)

    def bias(self, valid: Tensor, alone: Tensor) -> Tensor:
        """Map `valid` (N, slots) to (N, L, 1): what is added to the keys' logits."""
        whole = _spread(valid[:, :WHOLE], self.tokens)
        older = _spread(valid[:, WHOLE:], self.tokens // POOLED) + LOG_POOLED
        return torch.cat((whole, older), dim=1)


def pool_of(variant: Variant) -> Pool | OlderPool | None:
    """Return how the variant pools its memory, if it does."""
    if variant.pooling is None:
        return None
    return OlderPool(variant) if variant.pooling == "older" else Pool(variant)


def _parts(x: Tensor, length: int) -> list[Tensor]:
    """Take (N, L, C) apart after `length`, if there is more.

    In one go: the gradients of slices would each be as large as the whole.
    """
    sizes = min(length, x.shape[1]), max(0, x.shape[1] - length)
    return list(x.split([size for size in sizes if size], dim=1))


def _averaged(x: Tensor, grid: int) -> Tensor:
    """Average the places of memories (N, L, C) 2 x 2."""
    count, length, channels = x.shape
    # sums, so that what flows back is divided when it is small
    rows = x.reshape(count * length // grid // POOL, POOL, -1).sum(1)
    pairs = rows.reshape(count * length // POOLED, POOL, channels).sum(1)
    return pairs.unflatten(0, (count, -1)) * (1 / POOLED)


def _spread(valid: Tensor, each: int) -> Tensor:
    """Map (N, slots) of 0 and 1 to biases (N, slots * each, 1)."""
    return ((1 - valid) * EMPTY).unsqueeze(-1).expand(-1, -1, each).flatten(1).unsqueeze(-1)


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
        self.pool = pool_of(variant)
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
        keys, values = (each.reshape(-1, slots * tokens, width) for each in (keys, values))
        alone = torch.clamp(2 - full.sum(1), 0, 1).view(-1, 1, 1)
        if self.pool is None:
            bias = _spread(full, tokens)
        else:
            values, bias = self.pool.values(values, alone), self.pool.bias(full, alone)
        if not self.variant.pointers:
            return Bank(keys, values, bias.transpose(1, 2), alone)
        found, valid = pointers
        parts = found.shape[-1] // width
        present = (found * valid.unsqueeze(-1)).unflatten(-1, (parts, width)).flatten(1, 2)
        values = torch.cat((values, present), dim=1)
        bias = torch.cat((bias, _spread(valid, parts)), dim=1)
        return Bank(keys, values, bias.transpose(1, 2), alone, present)

"""EfficientTAM's memory attention with channels-first keys and everything constant folded.

Exact, up to rounding:

- keys are made as (channels, tokens), so that no engine has to transpose them;
- the rotary code is a second projection: turning pairs of channels commutes with the weights;
- the query's scale is in its weights, and which slots are empty is one more channel: one of the
  query, the mask of the keys;
- rows of attention sum to one, so values are mixed in a memory's M channels (64) before they are
  projected to C (256, so a quarter of the work), and value and output projections become one;
- with pooling, the four members of a pool are four batches of the keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from phoneward.export.models.efficienttam.layers import EMPTY, one_hot
from phoneward.export.models.efficienttam.memory_attention import (
    LOG_POOLED,
    CrossAttention,
    Layer,
    MemoryReader,
    SelfAttention,
)
from phoneward.export.models.efficienttam.variants import (
    POINTER_SLOTS,
    POOL,
    POOLED,
    TEMPORAL_CODES,
    WHOLE,
    Variant,
)
from phoneward.export.rewrites.modules import linear, replace


def apply(model: nn.Module) -> int:
    """Replace every memory reader of `model`; returns how many there were."""
    return replace(model, MemoryReader, FoldedReader)


def turned(weight: Tensor) -> Tensor:
    """The rows of (C, ...) with each pair (a, b) become (-b, a): a quarter turn."""
    pairs = weight.unflatten(0, (-1, 2))
    return torch.stack((-pairs[:, 1], pairs[:, 0]), dim=1).flatten(0, 1)


class TurnedQuery(nn.Module):
    """Project, scale and turn tokens (1, T, C) to (1, T, C + extra), the extra channels 1."""

    def __init__(self, projection: nn.Linear, extra: int) -> None:
        super().__init__()
        scale = 1 / math.sqrt(projection.weight.shape[0])
        weight, bias = projection.weight * scale, projection.bias * scale
        self.straight = linear(
            torch.cat((weight, weight.new_zeros(extra, weight.shape[1]))),
            torch.cat((bias, bias.new_ones(extra))),
        )
        self.turned = linear(
            torch.cat((turned(weight), weight.new_zeros(extra, weight.shape[1]))),
            torch.cat((turned(bias), bias.new_zeros(extra))),
        )

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Take tables of (T, C + extra)."""
        return cast(Tensor, self.straight(x) * cosines + self.turned(x) * sines)


class TurnedKey(nn.Module):
    """Project and turn channels-first tokens (members, C + 1, N) to keys (members, K, N).

    The last channel is ones and carries the bias. `passed` (0 or 1) channels before it become the
    keys' last as they are: the mask.
    """

    def __init__(self, projection: nn.Linear, members: int = 1, passed: int = 0) -> None:
        super().__init__()
        channels, width = projection.weight.shape
        straight = torch.zeros(channels + passed, width + passed + 1)
        straight[:channels, :width] = projection.weight
        straight[:channels, -1] = projection.bias
        quarter = straight.clone()
        quarter[:channels] = turned(straight[:channels])
        straight[channels:, width:-1] = torch.eye(passed)
        self.register_buffer("straight", straight.repeat(members, 1, 1))
        self.register_buffer("quarter", quarter.repeat(members, 1, 1))

    def forward(self, tokens: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Take tables of (members, K, N)."""
        straight, quarter = cast(Tensor, self.straight), cast(Tensor, self.quarter)
        return torch.bmm(straight, tokens) * cosines + torch.bmm(quarter, tokens) * sines

    def unturned(self, tokens: Tensor) -> Tensor:
        """Project (1, C + 1, N) only."""
        return torch.bmm(cast(Tensor, self.straight)[:1], tokens)


def _folded_output(attention: CrossAttention | SelfAttention) -> tuple[Tensor, Tensor]:
    """Value and output projection as one weight and bias."""
    out, value = attention.out_proj, attention.v_proj
    return out.weight @ value.weight, out.weight @ value.bias + out.bias


class FoldedSelfAttention(nn.Module):
    """Attention within the frame; the output projection is part of the values."""

    def __init__(self, attention: SelfAttention) -> None:
        super().__init__()
        self.query = TurnedQuery(attention.q_proj, 0)
        self.key = TurnedKey(attention.k_proj)
        # rows of attention sum to one, so that the bias may be part of the values
        self.value = linear(*_folded_output(attention))

    def forward(self, x: Tensor, turns: Turns) -> Tensor:
        """Map (1, T, C) to itself."""
        q = self.query(x, turns.cosines, turns.sines)
        columns = torch.cat((x.transpose(1, 2), turns.ones), dim=1)
        k = self.key(columns, turns.cosine_columns, turns.sine_columns)
        return torch.bmm(torch.bmm(q, k).softmax(-1), self.value(x))


class Turns(nn.Module):
    """The rotary tables of a frame, by rows and by columns, and a row of ones."""

    def __init__(self, cosines: Tensor, sines: Tensor) -> None:
        super().__init__()
        self.register_buffer("cosines", cosines)
        self.register_buffer("sines", sines)
        self.register_buffer("cosine_columns", cosines.transpose(0, 1).unsqueeze(0).contiguous())
        self.register_buffer("sine_columns", sines.transpose(0, 1).unsqueeze(0).contiguous())
        self.register_buffer("ones", torch.ones(1, 1, cosines.shape[0]))


class FoldedCrossAttention(nn.Module):
    """Attention to the bank, mixed in the few channels of a memory."""

    def __init__(self, attention: CrossAttention) -> None:
        super().__init__()
        members = 1 if attention.pool is None else POOLED
        self.query = TurnedQuery(attention.q_proj, 1)
        self.key = TurnedKey(attention.k_proj, members, passed=1)
        self.output = linear(*_folded_output(attention))

    def forward(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Map queries (1, T, C + 1), keys (1, C + 1, N) and values (1, N, M) to (1, T, C)."""
        return cast(Tensor, self.output(torch.bmm(torch.bmm(q, keys).softmax(-1), values)))


class FoldedLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward net."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = layer.norm1, layer.norm2, layer.norm3
        self.self_attention = FoldedSelfAttention(layer.self_attn)
        self.cross_attention = FoldedCrossAttention(layer.cross_attn_image)
        self.linear1, self.linear2 = layer.linear1, layer.linear2


class FoldedReader(nn.Module):
    """`MemoryReader` in other words: the same inputs and outputs."""

    def __init__(self, reader: MemoryReader) -> None:
        super().__init__()
        variant = reader.variant
        self.variant = variant
        self.members = 1 if variant.pooling is None else POOLED
        self.layers = nn.ModuleList(FoldedLayer(layer) for layer in reader.attention.layers)
        self.norm = reader.attention.norm
        self.register_buffer("positions", reader.positions)
        self.turns = Turns(reader.cosines, reader.sines)
        self.register_buffer("query_cosines", _wider(reader.cosines, 1))
        self.register_buffer("query_sines", _wider(reader.sines, 0))
        self.bank = FoldedBank(reader, self.members)
        self.pool_keys: Pool | OlderPool | None = None
        self.pool_values: Pool | OlderPool | None = None
        if variant.pooling is not None:
            self.pool_keys, self.pool_values = _pools(variant)

    def forward(self, features: Tensor, memory: Tensor, age: Tensor, *pointers: Tensor) -> Tensor:
        """Map features (1, T, C) to conditioned features of the same shape."""
        keys_in, values, pointed, full = self.bank(memory, age, *pointers)
        alone = torch.clamp(2 - full.sum(1), 0, 1).view(1, 1, 1)
        if self.pool_values is not None:
            values = self.pool_values(values, alone)
        parts = [values.transpose(1, 2)]
        if pointed is not None:
            parts.append(pointed[:, : self.variant.widths.memory].transpose(1, 2))
        values = torch.cat(parts, dim=1)
        x = features + cast(Tensor, self.positions)
        for layer in self.layers:
            x = x + layer.self_attention(layer.norm1(x), self.turns)
            cross = layer.cross_attention
            q = cross.query(layer.norm2(x), self.query_cosines, self.query_sines)
            keys = self._keys(cross.key, keys_in, pointed, alone)
            x = x + cross(q, keys, values)
            x = x + layer.linear2(layer.linear1(layer.norm3(x)).relu())
        return cast(Tensor, self.norm(x))

    def _keys(self, key: TurnedKey, bank: Tensor, pointed: Tensor | None, alone: Tensor) -> Tensor:
        keys = key(bank, self.bank.cosines, self.bank.sines)
        if self.pool_keys is None:
            return keys
        keys = self.pool_keys(keys, alone)
        return keys if pointed is None else torch.cat((keys, key.unturned(pointed)), dim=2)


class FoldedBank(nn.Module):
    """The host's arrays as (members, M + 2, N): memory with its codes, the mask, and ones."""

    def __init__(self, reader: MemoryReader, members: int) -> None:
        super().__init__()
        self.variant, self.members = reader.variant, members
        slots, each = self.variant.slots, self.variant.tokens // members
        widths = self.variant.widths
        parts = widths.channels // widths.memory
        self.register_buffer("codes", reader.codes)
        self.register_buffer("spread", torch.eye(slots).repeat_interleave(each, dim=1))
        self.register_buffer("parts", torch.eye(POINTER_SLOTS).repeat_interleave(parts, dim=1))
        tiled = reader.places.transpose(0, 1).repeat(1, slots).unsqueeze(0)
        self.register_buffer("places", self._split(tiled).clone())
        self.register_buffer("zeros", torch.zeros(members, 1, slots * each))
        turns = []
        for table, end in ((reader.cosines, 1.0), (reader.sines, 0.0)):
            wide = _wider(table, end).transpose(0, 1).repeat(1, slots).unsqueeze(0)
            turns.append(self._split(wide))
        if members == 1 and self.variant.pointers:
            unturned = torch.ones(1, widths.channels + 1, POINTER_SLOTS * parts)
            turns = [torch.cat((turns[0], unturned), 2), torch.cat((turns[1], 0 * unturned), 2)]
        self.register_buffer("cosines", turns[0].contiguous())
        self.register_buffer("sines", turns[1].contiguous())

    def forward(
        self, memory: Tensor, age: Tensor, *pointers: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Return the bank, its values (members, M, N), the pointers' bank, and what is full.

        Without pooling the pointers' bank is part of the bank too.
        """
        full = torch.clamp(age + 1, 0, 1)
        spread = cast(Tensor, self.spread)
        row = (full @ spread).unsqueeze(0)
        codes = (one_hot(age, 0, TEMPORAL_CODES) @ cast(Tensor, self.codes)).transpose(1, 2)
        values = self._split(memory) * row
        keys = values + (cast(Tensor, self.places) + codes @ spread)
        zeros = cast(Tensor, self.zeros)
        bank = torch.cat((keys, zeros + (1 - row) * EMPTY, zeros + 1), dim=1)
        if not pointers:
            return bank, values, None, full
        pointed = self._pointed(*pointers)
        if self.members == 1:
            bank = torch.cat((bank, pointed), dim=2)
        return bank, values, pointed, full

    def _pointed(self, pointers: Tensor, valid: Tensor) -> Tensor:
        present = (pointers * valid.unsqueeze(-1)).reshape(1, -1, self.variant.widths.memory)
        mask = ((1 - valid) @ cast(Tensor, self.parts)).unsqueeze(0) * EMPTY
        return torch.cat((present.transpose(1, 2), mask, torch.ones_like(mask)), dim=1)

    def _split(self, x: Tensor) -> Tensor:
        """Cut (1, C, slots * T) into (members, C, slots * T / members), one for each corner."""
        if self.members == 1:
            return x
        channels, half = x.shape[1], self.variant.grid // POOL
        corners = x.reshape(channels * self.variant.slots * half, POOL, half, POOL)
        return corners.permute(1, 3, 0, 2).reshape(POOLED, channels, -1)


class Pool(nn.Module):
    """The mean of the members, or all members of slot 0 where it is alone.

    `empty` (C) is what stands where there is no key; `added` (C) is added to the mean.
    """

    def __init__(self, variant: Variant, empty: Tensor, added: Tensor) -> None:
        super().__init__()
        self.each = variant.tokens // POOLED
        lengths = variant.tokens, variant.slots * self.each
        ends = [empty.view(1, -1, 1).repeat(1, 1, max(lengths) - length) for length in lengths]
        self.register_buffer("whole_end", ends[0])
        self.register_buffer("pooled_end", ends[1])
        self.register_buffer("added", added.view(1, -1, 1))

    def forward(self, x: Tensor, alone: Tensor) -> Tensor:
        """Map (4, C, N) to (1, C, L)."""
        corners = x.split(1, dim=0)
        pooled = _mean(corners) + cast(Tensor, self.added)
        pooled = _longer(pooled, cast(Tensor, self.pooled_end))
        whole = torch.cat([corner[:, :, : self.each] for corner in corners], dim=2)
        whole = _longer(whole, cast(Tensor, self.whole_end))
        return alone * whole + (1 - alone) * pooled


class OlderPool(nn.Module):
    """All members of the first slots, then the mean of the others'; `added` (C) is added to it."""

    def __init__(self, variant: Variant, added: Tensor) -> None:
        super().__init__()
        self.whole = min(WHOLE, variant.slots) * variant.tokens // POOLED
        self.older = variant.slots > WHOLE
        self.register_buffer("added", added.view(1, -1, 1))

    def forward(self, x: Tensor, alone: Tensor) -> Tensor:
        """Map (4, C, N) to (1, C, L)."""
        corners = x.split(1, dim=0)
        parts = [corner[:, :, : self.whole] for corner in corners]
        if self.older:
            rest = [corner[:, :, self.whole :] for corner in corners]
            parts.append(_mean(rest) + cast(Tensor, self.added))
        return torch.cat(parts, dim=2)


def _mean(corners: Sequence[Tensor]) -> Tensor:
    # two by two: half precision does not hold the sum of four masks
    return ((corners[0] + corners[1]) * 0.5 + (corners[2] + corners[3]) * 0.5) * 0.5


def _longer(x: Tensor, end: Tensor) -> Tensor:
    return torch.cat((x, end), dim=2) if end.shape[2] else x


def _pools(variant: Variant) -> tuple[Pool | OlderPool, Pool | OlderPool]:
    """Of keys and of values."""
    channels = variant.widths.channels
    empty, added = torch.zeros(channels + 1), torch.zeros(channels + 1)
    empty[channels] = EMPTY
    added[slice(channels) if variant.pooling == "keys" else channels] = LOG_POOLED
    nothing = torch.zeros(variant.widths.memory)
    if variant.pooling == "older":
        return OlderPool(variant, added), OlderPool(variant, nothing)
    return Pool(variant, empty, added), Pool(variant, nothing, nothing)


def _wider(table: Tensor, value: float) -> Tensor:
    return torch.cat((table, torch.full((table.shape[0], 1), value)), dim=1)

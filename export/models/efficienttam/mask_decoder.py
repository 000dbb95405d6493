"""Mask decoder: tokens and features look at each other in turn (Segment Anything)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phoneward.export.models.efficienttam.layers import (
    MLP,
    LayerNorm2d,
    attend,
    from_heads,
    to_heads,
    to_map,
)
from phoneward.export.models.efficienttam.variants import Widths

MASKS = 4
_HEADS = 8
_LAYERS = 2
OWN_TOKENS = 2 + MASKS


class Attention(nn.Module):
    """Multi-head attention in `width` of the channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(channels, width)
        self.k_proj = nn.Linear(channels, width)
        self.v_proj = nn.Linear(channels, width)
        self.out_proj = nn.Linear(width, channels)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map queries (N, L, C), keys and values (N, S, C) to (N, L, C); the bias is (N, 1, S)."""
        if bias is not None and bias.shape[0] > 1:
            bias = bias.repeat_interleave(_HEADS, dim=0)
        maps = ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        queries, keys, values = (to_heads(projection(x), _HEADS) for projection, x in maps)
        mixed = from_heads(attend(queries, keys, values, bias), _HEADS)
        return cast(Tensor, self.out_proj(mixed))


class TwoWayBlock(nn.Module):
    """Tokens look at themselves and at the image, then the image looks at the tokens."""

    def __init__(self, widths: Widths, *, first: bool) -> None:
        super().__init__()
        channels = widths.channels
        self.first = first
        self.self_attn = Attention(channels, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.cross_attn_token_to_image = Attention(channels, channels // 2)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP((channels, widths.feed_forward, channels), nn.ReLU())
        self.norm3 = nn.LayerNorm(channels)
        self.norm4 = nn.LayerNorm(channels)
        self.cross_attn_image_to_token = Attention(channels, channels // 2)

    def forward(self, tokens: Tensor, image: Tensor, codes: Codes) -> tuple[Tensor, Tensor]:
        """Map tokens (B, N, C) and the image's tokens (B, T, C) to themselves."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, codes.bias)
        else:
            q = tokens + codes.tokens
            tokens = tokens + self.self_attn(q, q, tokens, codes.bias)
        tokens = self.norm1(tokens)
        q, k = tokens + codes.tokens, image + codes.image
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(q, k, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        q = tokens + codes.tokens
        image = image + self.cross_attn_image_to_token(k, q, tokens, codes.bias)
        return tokens, self.norm4(image)


@dataclass(frozen=True)
class Codes:
    """What is added before each look: tokens (B, N, C), image (1, T, C).

    `bias` (B, 1, N), where given, keeps unused tokens from being looked at.
    """

    tokens: Tensor
    image: Tensor
    bias: Tensor | None = None


class TwoWayTransformer(nn.Module):
    """Two blocks, and a last look of the tokens at the image."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(widths, first=i == 0) for i in range(_LAYERS))
        self.final_attn_token_to_image = Attention(widths.channels, widths.channels // 2)
        self.norm_final_attn = nn.LayerNorm(widths.channels)

    def forward(self, image: Tensor, codes: Codes) -> tuple[Tensor, Tensor]:
        """Map the image's tokens (B, T, C) to the prompts' answers and the image's."""
        tokens = codes.tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, codes)
        look = self.final_attn_token_to_image(tokens + codes.tokens, image + codes.image, image)
        return self.norm_final_attn(tokens + look), image


@dataclass(frozen=True)
class Candidates:
    """The decoder's four answers: the first is for unambiguous prompts, the others compete.

    `kernels` (B, 4, C / 8) times `upscaled` (B, C / 8, 16 T) are mask logits; `ious` (B, 4) from 0
    to 1; `tokens` (B, 4, C); `score` (B, 1), positive where the object is in sight.
    """

    kernels: Tensor
    upscaled: Tensor
    ious: Tensor
    tokens: Tensor
    score: Tensor


class MaskDecoder(nn.Module):
    """Features and prompts to mask candidates."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        channels = widths.channels
        self.transformer = TwoWayTransformer(widths)
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(MASKS, channels)
        self.obj_score_token = nn.Embedding(1, channels)
        self.quarter = widths.quarter
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(channels, widths.eighth, 2, stride=2),
            LayerNorm2d(widths.eighth),
            nn.GELU(),
            nn.ConvTranspose2d(widths.eighth, widths.quarter, 2, stride=2),
            nn.GELU(),
        )
        inner = (channels, channels, channels)
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP((*inner, widths.quarter), nn.ReLU()) for _ in range(MASKS)
        )
        self.iou_prediction_head = MLP((*inner, MASKS), nn.ReLU())
        self.pred_obj_score_head = MLP((*inner, 1), nn.ReLU())

    def own_tokens(self) -> Tensor:
        """The tokens that precede the prompts', (1, 6, C)."""
        tokens = (self.obj_score_token, self.iou_token, self.mask_tokens)
        return torch.cat([token.weight for token in tokens]).unsqueeze(0)

    def forward(self, image: Tensor, codes: Codes, fine: Tensor | None, grid: int) -> Candidates:
        """Map the image's tokens with the mask prompt's map added, (B, T, C).

        `fine` (B, T, F - C) has the finer levels folded, where the features have them.
        """
        tokens, image = self.transformer(image, codes)
        upscaled = self._upscaled(image, fine, grid)
        answers = tokens[:, 2:OWN_TOKENS]
        kernels = [mlp(answers[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)]
        return Candidates(
            kernels=torch.stack(kernels, dim=1),
            upscaled=upscaled.flatten(2),
            ious=self.iou_prediction_head(tokens[:, 1]).sigmoid(),
            tokens=answers,
            score=self.pred_obj_score_head(tokens[:, 0]),
        )

    def _upscaled(self, tokens: Tensor, fine: Tensor | None, grid: int) -> Tensor:
        """Map (B, T, C), and the finer levels, to (B, C / 8, 4g, 4g)."""
        image = to_map(tokens, grid)
        if fine is None:
            return cast(Tensor, self.output_upscaling(image))
        larger, norm, active, largest, last = self.output_upscaling
        levels, folded = to_map(fine, grid), 16 * self.quarter
        image = active(norm(larger(image) + F.pixel_shuffle(levels[:, folded:], 2)))
        return cast(Tensor, last(largest(image) + F.pixel_shuffle(levels[:, :folded], 4)))

"""Mask decoder: tokens and features look at each other in turn (Segment Anything)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from phoneward.export.models.efficienttam.layers import (
    MLP,
    LayerNorm2d,
    attend,
    from_heads,
    to_heads,
    to_map,
)
from phoneward.export.models.efficienttam.variants import CHANNELS

MASKS = 4
_HEADS = 8
_LAYERS = 2
_FEED_FORWARD = 2048
OWN_TOKENS = 2 + MASKS


class Attention(nn.Module):
    """Multi-head attention, in fewer channels where `width` is less than 256."""

    def __init__(self, width: int = CHANNELS) -> None:
        super().__init__()
        self.q_proj = nn.Linear(CHANNELS, width)
        self.k_proj = nn.Linear(CHANNELS, width)
        self.v_proj = nn.Linear(CHANNELS, width)
        self.out_proj = nn.Linear(width, CHANNELS)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map queries (1, L, 256), keys and values (1, S, 256) to (1, L, 256)."""
        maps = ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        queries, keys, values = (to_heads(projection(x), _HEADS) for projection, x in maps)
        mixed = from_heads(attend(queries, keys, values, bias), _HEADS)
        return cast(Tensor, self.out_proj(mixed))


class TwoWayBlock(nn.Module):
    """Tokens look at themselves and at the image, then the image looks at the tokens."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention()
        self.norm1 = nn.LayerNorm(CHANNELS)
        self.cross_attn_token_to_image = Attention(CHANNELS // 2)
        self.norm2 = nn.LayerNorm(CHANNELS)
        self.mlp = MLP((CHANNELS, _FEED_FORWARD, CHANNELS), nn.ReLU())
        self.norm3 = nn.LayerNorm(CHANNELS)
        self.norm4 = nn.LayerNorm(CHANNELS)
        self.cross_attn_image_to_token = Attention(CHANNELS // 2)

    def forward(self, tokens: Tensor, image: Tensor, codes: Codes) -> tuple[Tensor, Tensor]:
        """Map tokens (1, N, 256) and the image's tokens (1, T, 256) to themselves."""
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
    """What is added before each look: tokens (1, N, 256), image (1, T, 256).

    `bias` (1, 1, N), where given, keeps unused tokens from being looked at.
    """

    tokens: Tensor
    image: Tensor
    bias: Tensor | None = None


class TwoWayTransformer(nn.Module):
    """Two blocks, and a last look of the tokens at the image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(first=i == 0) for i in range(_LAYERS))
        self.final_attn_token_to_image = Attention(CHANNELS // 2)
        self.norm_final_attn = nn.LayerNorm(CHANNELS)

    def forward(self, image: Tensor, codes: Codes) -> tuple[Tensor, Tensor]:
        """Map the image's tokens (1, T, 256) to the prompts' answers and the image's."""
        tokens = codes.tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, codes)
        look = self.final_attn_token_to_image(tokens + codes.tokens, image + codes.image, image)
        return self.norm_final_attn(tokens + look), image


@dataclass(frozen=True)
class Candidates:
    """The decoder's four answers: the first is for unambiguous prompts, the others compete.

    `kernels` (1, 4, 32) times `upscaled` (1, 32, 16 T) are mask logits; `ious` (1, 4) from 0 to 1;
    `tokens` (1, 4, 256); `score` (1, 1), positive where the object is in sight.
    """

    kernels: Tensor
    upscaled: Tensor
    ious: Tensor
    tokens: Tensor
    score: Tensor


class MaskDecoder(nn.Module):
    """Features and prompts to mask candidates."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer()
        self.iou_token = nn.Embedding(1, CHANNELS)
        self.mask_tokens = nn.Embedding(MASKS, CHANNELS)
        self.obj_score_token = nn.Embedding(1, CHANNELS)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(CHANNELS, CHANNELS // 4, 2, stride=2),
            LayerNorm2d(CHANNELS // 4),
            nn.GELU(),
            nn.ConvTranspose2d(CHANNELS // 4, CHANNELS // 8, 2, stride=2),
            nn.GELU(),
        )
        widths = (CHANNELS, CHANNELS, CHANNELS)
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP((*widths, CHANNELS // 8), nn.ReLU()) for _ in range(MASKS)
        )
        self.iou_prediction_head = MLP((*widths, MASKS), nn.ReLU())
        self.pred_obj_score_head = MLP((*widths, 1), nn.ReLU())

    def own_tokens(self) -> Tensor:
        """The tokens that precede the prompts', (1, 6, 256)."""
        tokens = (self.obj_score_token, self.iou_token, self.mask_tokens)
        return torch.cat([token.weight for token in tokens]).unsqueeze(0)

    def forward(self, image: Tensor, codes: Codes, grid: int) -> Candidates:
        """Map the image's tokens with the mask prompt's map added, (1, T, 256)."""
        tokens, image = self.transformer(image, codes)
        upscaled = self.output_upscaling(to_map(image, grid))
        answers = tokens[:, 2:OWN_TOKENS]
        kernels = [mlp(answers[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)]
        return Candidates(
            kernels=torch.stack(kernels, dim=1),
            upscaled=upscaled.flatten(2),
            ious=self.iou_prediction_head(tokens[:, 1]).sigmoid(),
            tokens=answers,
            score=self.pred_obj_score_head(tokens[:, 0]),
        )

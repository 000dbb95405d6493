"""Prompt encoder: points and masks as tokens and as a map (Segment Anything, arXiv 2304.02643)."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from phoneward.export.models.efficienttam.layers import LayerNorm2d, one_hot, to_map

_KINDS = 4
NOT_A_POINT = -1
_MASK_CHANNELS = 16


class RandomPositions(nn.Module):
    """Random Fourier features of a place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        matrix = torch.randn(2, channels // 2)
        self.register_buffer("positional_encoding_gaussian_matrix", matrix)

    def forward(self, places: Tensor) -> Tensor:
        """Map (..., 2) places x, y from 0 to 1 to (..., C)."""
        matrix = cast(Tensor, self.positional_encoding_gaussian_matrix)
        angles = (2 * math.pi) * ((2 * places - 1) @ matrix)
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class PromptEncoder(nn.Module):
    """Labels: 1 positive, 0 negative, 2 and 3 the corners of a box, -1 not a point, -2 unused."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.pe_layer = RandomPositions(channels)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, channels) for _ in range(_KINDS))
        self.not_a_point_embed = nn.Embedding(1, channels)
        quarter = _MASK_CHANNELS // 4
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, quarter, 2, stride=2),
            LayerNorm2d(quarter),
            nn.GELU(),
            nn.Conv2d(quarter, _MASK_CHANNELS, 2, stride=2),
            LayerNorm2d(_MASK_CHANNELS),
            nn.GELU(),
            nn.Conv2d(_MASK_CHANNELS, channels, 1),
        )
        self.no_mask_embed = nn.Embedding(1, channels)

    def embed_points(self, points: Tensor, labels: Tensor, size: int) -> Tensor:
        """Map points (N, P, 2) in pixels and labels (N, P) to tokens (N, P, C)."""
        kinds = one_hot(labels, NOT_A_POINT, 1 + _KINDS)
        table = torch.cat([e.weight for e in (self.not_a_point_embed, *self.point_embeddings)])
        real = kinds[..., 1:].sum(-1, keepdim=True)
        return self.pe_layer((points + 0.5) / size) * real + kinds @ table

    def dense_positions(self, grid: int) -> Tensor:
        """Code of every token's centre, (1, grid * grid, C)."""
        centre = (torch.arange(grid, dtype=torch.float32) + 0.5) / grid
        rows, columns = torch.meshgrid(centre, centre, indexing="ij")
        return cast(Tensor, self.pe_layer(torch.stack((columns, rows), -1).reshape(1, -1, 2)))

    def embed_mask(self, logits: Tensor) -> Tensor:
        """Map (N, 1, 4g, 4g) mask logits to (N, C, g, g)."""
        return cast(Tensor, self.mask_downscaling(logits))

    def no_mask(self, grid: int) -> Tensor:
        """What stands for the map where there is no mask, (1, C, grid, grid)."""
        return to_map(self.no_mask_embed.weight.expand(1, grid * grid, self.channels), grid)

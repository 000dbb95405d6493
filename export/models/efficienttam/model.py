"""The whole model under its official parameter names."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from phoneward.export.models.efficienttam.image_encoder import ImageEncoder
from phoneward.export.models.efficienttam.layers import MLP
from phoneward.export.models.efficienttam.mask_decoder import MaskDecoder
from phoneward.export.models.efficienttam.memory_attention import MemoryAttention
from phoneward.export.models.efficienttam.memory_encoder import MemoryEncoder
from phoneward.export.models.efficienttam.prompt_encoder import PromptEncoder
from phoneward.export.models.efficienttam.variants import TEMPORAL_CODES, Variant

_SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
_IN_SIGHT = 5.0


class EfficientTAM(nn.Module):
    """Parameters and parts; `stages` says what is computed from them."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant, widths = variant, variant.widths
        channels = widths.channels
        self.image_encoder = ImageEncoder(variant)
        self.memory_attention = MemoryAttention(variant)
        self.memory_encoder = MemoryEncoder(widths)
        self.sam_prompt_encoder = PromptEncoder(channels)
        self.sam_mask_decoder = MaskDecoder(widths)
        self.obj_ptr_proj = MLP((channels, channels, channels, channels), nn.ReLU())
        self.mask_downsample = nn.Conv2d(1, 1, 4, stride=4)
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(TEMPORAL_CODES, 1, 1, widths.memory))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, channels))
        # not read: the official configurations add `no_mem_embed` itself
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, channels))
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, channels))

    def randomise(self, seed: int) -> None:
        """Draw weights that keep the variance of what passes; the object counts as in sight."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, tensor in self.state_dict().items():
                values = torch.randn(tensor.shape, generator=generator)
                if tensor.ndim > 1:
                    values /= tensor[0].numel() ** 0.5
                elif name.endswith(("weight", "running_var")):
                    values = 1 + 0.1 * values
                else:
                    values *= 0.05
                cast(Tensor, tensor).copy_(values)
            self.state_dict()[_SCORE_BIAS].fill_(_IN_SIGHT)

"""EfficientFormer's LayerNorms and token mean as ops that every delegate has.

Before: `LayerNorm(x) = (x - mean) / sqrt(var + eps) * gamma + beta` on (1, N, C) and, before the
head, the mean over tokens: native ops that XNNPACK's partitioner refuses (four partitions in L1,
eighteen in L7).
After: `x * rsqrt(x^2 @ ones / C + eps)`. Every reader of the token stream removes the mean over
channels, so it is removed once, where tokens leave the feature map, and the writers (attention
output, second feed-forward matrix) are centred: weights times `I - 1/C` (the idea of SliceGPT,
arXiv 2401.15024, section 3). gamma and beta go into the readers. The last norm's division and the
mean over tokens are one product, (1, 1, N) with (1, N, C).

Apply after `fold_layer_scale`, `merge_heads` and `biased_attention`.
"""

from __future__ import annotations

import torch
from timm.models.efficientformer import Flat, MetaBlock1d
from torch import Tensor, nn

from phoneward.export.rewrites.merge_heads import OneHeadEfficientFormer
from phoneward.export.rewrites.mobilevit_rms import RootMeanSquare
from phoneward.export.rewrites.modules import replace
from phoneward.export.rewrites.token_attention import linear


class CentredTokens(nn.Module):
    """(1, C, H, W) -> (1, H * W, C) of zero mean over channels."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.mean = linear(weight.new_full((1, weight.numel()), 1 / weight.numel()), None)

    def forward(self, x: Tensor) -> Tensor:
        """Flatten the map and remove each token's mean."""
        x = x.flatten(2).transpose(1, 2)
        centred: Tensor = x - self.mean(x)
        return centred


class RmsEfficientFormer(OneHeadEfficientFormer):
    """An EfficientFormer with a centred token stream; `norm` holds only the variance."""

    def forward(self, x: Tensor) -> Tensor:
        """Classify (1, 3, H, W)."""
        x = self.stages(self.stem(x))
        scale = torch.rsqrt(self.norm.variance(x * x)).reshape(1, 1, -1)
        logits: Tensor = self.head(torch.bmm(scale, x).flatten(1))
        return logits


def apply(model: nn.Module) -> int:
    """Replace the LayerNorms of every EfficientFormer; returns how many norms."""
    return sum(_rewrite(m) for m in model.modules() if type(m) is OneHeadEfficientFormer)


def _rewrite(network: nn.Module) -> int:
    blocks = [m for m in network.modules() if type(m) is MetaBlock1d]
    norm = network.norm
    replace(network, Flat, lambda _: CentredTokens(norm.weight.detach()))
    for block in blocks:
        attention, mlp = block.token_mixer, block.mlp
        # keys need no bias; a value bias reaches the output whole, so the output projection has it
        passed = attention.proj.weight @ (attention.value.weight @ block.norm1.bias)
        _set(attention.proj, attention.proj.weight, attention.proj.bias + passed)
        for reader in (attention.key, attention.value):
            _set(reader, reader.weight * block.norm1.weight, None)
        _absorb(attention.query, block.norm1)
        _absorb(mlp.fc1, block.norm2)
        for writer in (attention.proj, mlp.fc2):
            weight, bias = writer.weight, writer.bias
            _set(writer, weight - weight.mean(0, keepdim=True), bias - bias.mean())
        block.norm1, block.norm2 = RootMeanSquare(block.norm1), RootMeanSquare(block.norm2)
    _absorb(network.head, norm)
    tokens = blocks[0].token_mixer.position_bias.shape[-1]
    _set(network.head, network.head.weight / tokens, network.head.bias)
    network.norm = RootMeanSquare(norm)
    network.__class__ = RmsEfficientFormer
    return 2 * len(blocks) + 1


def _absorb(reader: nn.Linear, norm: nn.LayerNorm) -> None:
    """Move gamma and beta of the norm before `reader` into it."""
    _set(reader, reader.weight * norm.weight, reader.bias + reader.weight @ norm.bias)


def _set(layer: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)

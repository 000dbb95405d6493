"""LayerNorms of MobileViT token blocks as four ops that every delegate has.

Before: `LayerNorm(x) = (x - mean) / sqrt(var + eps) * gamma + beta` on (B, N, C), a native op that
XNNPACK's partitioner refuses (it cuts the graph at each of the 21).
After: `x * rsqrt(x^2 @ ones / C + eps)`, where the mean of squares and eps are one `Linear(C, 1)`.

In a pre-norm transformer each reader of the residual stream removes the mean over channels, so
the writers (entry convolution, attention output, second feed-forward matrix) may as well write
centred values: their weights are multiplied by `I - 1/C` once, and the mean is then zero for good
(the idea of SliceGPT, arXiv 2401.15024, section 3). gamma and beta go into the readers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from phoneward.export.rewrites.mobilevit_tokens import TokenBlock
from phoneward.export.rewrites.token_attention import linear


class RootMeanSquare(nn.Module):
    """(..., C) of zero mean -> (..., C) of zero mean and unit variance."""

    def __init__(self, source: nn.LayerNorm) -> None:
        super().__init__()
        gamma, channels = source.weight.detach(), source.weight.numel()
        mean = gamma.new_full((1, channels), 1 / channels)
        self.variance = linear(mean, gamma.new_full((1,), source.eps))

    def forward(self, x: Tensor) -> Tensor:
        """Divide each token by the root of its mean square."""
        return x * torch.rsqrt(self.variance(x * x))


def apply(model: nn.Module) -> int:
    """Replace the LayerNorms of every `TokenBlock`; returns how many norms."""
    blocks = [m for m in model.modules() if type(m) is TokenBlock]
    return sum(_rewrite(block) for block in blocks if isinstance(block.norm, nn.LayerNorm))


def _rewrite(block: TokenBlock) -> int:
    _center(block.conv_1x1)
    for layer in block.layers:
        attention = layer.attention
        # keys need no bias; a value bias reaches the output whole, so the output projection has it
        attention.proj.bias = _frozen(
            attention.proj.bias
            + attention.proj.weight @ (attention.value.weight @ layer.norm1.bias)
        )
        _absorb(attention.query, layer.norm1)
        for reader in (attention.key, attention.value):
            reader.weight = _frozen(reader.weight * layer.norm1.weight)
        _absorb(layer.fc1, layer.norm2)
        _center(attention.proj)
        _center(layer.fc2)
        layer.norm1, layer.norm2 = RootMeanSquare(layer.norm1), RootMeanSquare(layer.norm2)
    _absorb(block.conv_proj.conv, block.norm)
    block.norm = RootMeanSquare(block.norm)
    return 2 * len(block.layers) + 1


def _center(writer: nn.Linear | nn.Conv2d) -> None:
    """Remove the mean over output channels from what `writer` adds to the stream."""
    writer.weight = _frozen(writer.weight - writer.weight.mean(0, keepdim=True))
    if writer.bias is not None:
        writer.bias = _frozen(writer.bias - writer.bias.mean())


def _absorb(reader: nn.Linear | nn.Conv2d, norm: nn.LayerNorm) -> None:
    """Move gamma and beta of the norm before a pointwise `reader` into it."""
    matrix = reader.weight.flatten(1)
    shift = matrix @ norm.bias
    reader.bias = _frozen(shift if reader.bias is None else reader.bias + shift)
    reader.weight = _frozen((matrix * norm.weight).reshape(reader.weight.shape))


def _frozen(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().clone(), requires_grad=False)

"""Token streams whose squares half precision can hold.

Before: root-mean-square norms square the stream, (B, N, C); a value beyond 256 overflows half
precision (65504). A native `LayerNorm` is no way out on ExecuTorch 1.5.1: its kernel for rows of
256 and more, which runs outside the delegate, reads pairs of halves as single floats and answers
nonsense (EfficientFormer: wrong by half of the output range).
After: the stream holds `x / 4`. Its writers carry the factor in their weights; its readers never
see it, because a norm removes any factor once its eps is divided by 16. The only new operation is
one multiplication where EfficientFormer's tokens leave the feature map.

Squares of half precision are whole from 6e-5 to 65504: a stream may now reach 1024, and its tokens'
root mean square may be as low as 0.03 (0.008 unscaled, 0.125 at a sixteenth) before they lose bits.

Apply after `efficientformer_rms` or `mobilevit_rms`.
"""

from __future__ import annotations

import torch
from timm.models.efficientformer import MetaBlock1d
from torch import Tensor, nn

from phoneward.export.rewrites.efficientformer_rms import CentredTokens, RmsEfficientFormer
from phoneward.export.rewrites.mobilevit_rms import RootMeanSquare
from phoneward.export.rewrites.mobilevit_tokens import TokenBlock
from phoneward.export.rewrites.modules import replace

FACTOR = 1 / 4
"""What the stream is multiplied by; a power of two, so that only subnormals are rounded."""


class ScaledTokens(nn.Module):
    """(1, C, H, W) -> (1, H * W, C) of zero mean over channels, times `FACTOR`."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.source = source

    def forward(self, x: Tensor) -> Tensor:
        """Scale, flatten the map and remove each token's mean."""
        tokens: Tensor = self.source(x * FACTOR)
        return tokens


class ScaledRootMeanSquare(RootMeanSquare):
    """A `RootMeanSquare` on a scaled stream; its eps is that of the stream."""


def apply(model: nn.Module) -> int:
    """Scale every token stream with root-mean-square norms; returns how many streams."""
    streams = [m for m in model.modules() if isinstance(m, (RmsEfficientFormer, TokenBlock))]
    found = [m for m in streams if type(m.norm) is RootMeanSquare]
    for stream in found:
        _rewrite(stream)
    return len(found)


def _rewrite(stream: nn.Module) -> None:
    writers: list[nn.Module]
    if isinstance(stream, TokenBlock):
        writers = [stream.conv_1x1]
        for layer in stream.layers:
            writers += [layer.attention.proj, layer.fc2]
    else:
        replace(stream, CentredTokens, ScaledTokens)
        writers = []
        for block in (m for m in stream.modules() if type(m) is MetaBlock1d):
            writers += [block.token_mixer.proj, block.mlp.fc2]
    for writer in writers:
        _scale(writer)
    for norm in [m for m in stream.modules() if type(m) is RootMeanSquare]:
        with torch.no_grad():
            norm.variance.bias.mul_(FACTOR**2)
        norm.__class__ = ScaledRootMeanSquare


def _scale(writer: nn.Module) -> None:
    with torch.no_grad():
        for parameter in writer.parameters():
            parameter.mul_(FACTOR)

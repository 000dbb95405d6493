"""EfficientTAM's memory encoder on tokens: norms and pointwise layers without turning the map.

Exact, up to rounding: pointwise convolutions are linear layers of tokens, and the blocks' scale is
in the weights of their last layer.
"""

from __future__ import annotations

from torch import Tensor, nn

from phoneward.export.models.efficienttam.layers import to_map, to_tokens
from phoneward.export.models.efficienttam.memory_encoder import ConvNextBlock, MemoryEncoder
from phoneward.export.rewrites.modules import linear, replace
from phoneward.export.rewrites.tam_windows import token_norm


def apply(model: nn.Module) -> int:
    """Replace every memory encoder of `model`; returns how many there were."""
    return replace(model, MemoryEncoder, TokenMemoryEncoder)


class TokenMemoryEncoder(nn.Module):
    """`MemoryEncoder` in other words: the same inputs and outputs."""

    def __init__(self, encoder: MemoryEncoder) -> None:
        super().__init__()
        *steps, last = encoder.mask_downsampler.encoder
        self.mask = nn.Sequential(*steps)
        self.mask_out = _pointwise(last)
        self.features = _pointwise(encoder.pix_feat_proj)
        self.blocks = nn.ModuleList(TokenBlock(block) for block in encoder.fuser.layers)
        self.out = _pointwise(encoder.out_proj)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Map features (1, T, 256) and a mask (1, 1, 16 g, 16 g) to (1, 64, T)."""
        seen = self.mask(mask)
        x = self.features(features) + self.mask_out(to_tokens(seen))
        for block in self.blocks:
            x = block(x, seen.shape[2])
        return self.out(x).transpose(1, 2)


class TokenBlock(nn.Module):
    """`ConvNextBlock` on tokens (1, T, 256)."""

    def __init__(self, block: ConvNextBlock) -> None:
        super().__init__()
        self.depthwise, self.norm = block.dwconv, token_norm(block.norm)
        self.wider, self.act = block.pwconv1, block.act
        gamma, last = block.gamma, block.pwconv2
        self.narrower = linear(gamma.unsqueeze(1) * last.weight, gamma * last.bias)

    def forward(self, x: Tensor, grid: int) -> Tensor:
        """Map tokens of a grid x grid map to themselves."""
        y = self.norm(to_tokens(self.depthwise(to_map(x, grid))))
        return x + self.narrower(self.act(self.wider(y)))


def _pointwise(convolution: nn.Conv2d) -> nn.Linear:
    return linear(convolution.weight.flatten(1), convolution.bias)

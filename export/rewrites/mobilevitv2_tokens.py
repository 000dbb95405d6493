"""MobileViTv2 blocks on channels-last tokens, with the key projection after the pooling.

Before: (B, C, H, W) -> six-axis unfold -> (B, C, 4, N) -> per layer GroupNorm(1), a 1x1 convolution
to 1 + 2C channels, split, softmax over N, (key * score).sum, relu(value) * context, a convolution,
GroupNorm(1), two 1x1 convolutions -> the same way back.
After: (B, 4, N, C) from `PatchGrid.unfold`, matrix products instead of 1x1 convolutions.

The scores of an offset add up to one, so the context is linear in the tokens:
`sum_n s_n (K x_n + b) = K (sum_n s_n x_n) + b`. Pooling first leaves one key product an offset
instead of one a token, C^2 of the layer's 7 C^2 multiplications less; the score bias drops out of
the softmax. gamma and beta of the norms go into the readers.
"""

from __future__ import annotations

import torch
from timm.models.mobilevit import LinearTransformerBlock, MobileVitV2Block
from torch import Tensor, nn

from phoneward.export.rewrites.mobilevit_tokens import replace, resized
from phoneward.export.rewrites.token_attention import linear
from phoneward.export.rewrites.token_patches import PatchGrid


class GlobalNorm(nn.Module):
    """(B, P, N, C) -> zero mean and unit variance over all but B, GroupNorm(1) without affine.

    Each statistic is a product with a row of 1 / C, then a mean of the P * N results. A mean over
    all values at once is one long sequential sum in XNNPACK's global pooling: slow (5 ms of 28 for
    the 42 of mobilevitv2_100) and off by 1e-5.
    """

    def __init__(self, source: nn.GroupNorm) -> None:
        super().__init__()
        channels = source.num_channels
        row = source.weight.detach().new_full((1, channels), 1 / channels)
        self.mean = linear(row, None)
        self.variance = linear(row, row.new_full((1,), source.eps))

    def forward(self, x: Tensor) -> Tensor:
        """Centre, then divide by the root of the mean square plus eps."""
        centred = x - self._over_tokens(self.mean(x))
        return centred * torch.rsqrt(self._over_tokens(self.variance(centred * centred)))

    @staticmethod
    def _over_tokens(rows: Tensor) -> Tensor:
        batch, offsets, patches, _ = rows.shape
        return rows.reshape(batch, 1, offsets, patches).mean((2, 3), keepdim=True)


class PooledTransformer(nn.Module):
    """A `LinearTransformerBlock` without dropout, (B, P, N, C) -> (B, P, N, C)."""

    def __init__(self, source: LinearTransformerBlock) -> None:
        super().__init__()
        attention, width = source.attn, source.attn.embed_dim
        self.norm1, self.norm2 = GlobalNorm(source.norm1), GlobalNorm(source.norm2)
        weight, bias = absorbed(attention.qkv_proj, source.norm1)
        self.score = linear(weight[:1], None)
        self.key = linear(weight[1 : 1 + width], bias[1 : 1 + width])
        self.value = linear(weight[1 + width :], bias[1 + width :])
        self.proj = linear(*absorbed(attention.out_proj, None))
        self.fc1 = linear(*absorbed(source.mlp.fc1, source.norm2))
        self.act = source.mlp.act
        self.fc2 = linear(*absorbed(source.mlp.fc2, None))

    def forward(self, x: Tensor) -> Tensor:
        """Add separable attention over N, then the feed-forward network."""
        x = x + self._attend(self.norm1(x))
        out: Tensor = x + self.fc2(self.act(self.fc1(self.norm2(x))))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        batch, offsets, patches, channels = x.shape
        flat = x.reshape(batch * offsets, patches, channels)
        scores = self.score(flat).reshape(batch * offsets, 1, patches).softmax(-1)
        context = self.key(torch.bmm(scores, flat))
        mixed: Tensor = self.proj(torch.relu(self.value(flat)) * context)
        return mixed.reshape(x.shape)


class PooledBlock(nn.Module):
    """A `MobileVitV2Block`, (B, C, H, W) -> (B, C', H, W)."""

    def __init__(self, source: MobileVitV2Block) -> None:
        super().__init__()
        self.conv_kxk, self.conv_1x1 = source.conv_kxk, source.conv_1x1
        self.layers = nn.Sequential(*(PooledTransformer(layer) for layer in source.transformer))
        self.norm = GlobalNorm(source.norm)
        self.conv_proj = source.conv_proj
        self.conv_proj.conv = with_affine(self.conv_proj.conv, source.norm)
        self.patch = source.patch_size

    def forward(self, x: Tensor) -> Tensor:
        """Mix locally, then among the pixels with one offset."""
        height, width = x.shape[-2:]
        ph, pw = self.patch
        grid = PatchGrid(-(-height // ph) * ph, -(-width // pw) * pw, ph, pw)
        x = self.conv_1x1(self.conv_kxk(resized(x, grid.height, grid.width, align_corners=True)))
        out: Tensor = self.conv_proj(grid.fold(self.norm(self.layers(grid.unfold(x)))))
        return out


def apply(model: nn.Module) -> int:
    """Replace every `MobileVitV2Block`; returns how many."""
    return replace(model, MobileVitV2Block, PooledBlock)


def absorbed(conv: nn.Conv2d, norm: nn.GroupNorm | None) -> tuple[Tensor, Tensor]:
    """Return (out, in) weight and (out,) bias of a 1x1 `conv` with the affine of `norm` inside."""
    weight = conv.weight.detach().flatten(1)
    bias = weight.new_zeros(weight.shape[0]) if conv.bias is None else conv.bias.detach()
    if norm is None:
        return weight, bias
    return weight * norm.weight.detach(), bias + weight @ norm.bias.detach()


def with_affine(conv: nn.Conv2d, norm: nn.GroupNorm) -> nn.Conv2d:
    """Return a 1x1 convolution that applies the affine of `norm` to what it reads."""
    return pointwise(*absorbed(conv, norm))


def pointwise(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Make a 1x1 convolution that holds these values; weight (out, in), bias (out,) or none."""
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    layer.weight = nn.Parameter(weight[:, :, None, None].clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone(), requires_grad=False)
    return layer

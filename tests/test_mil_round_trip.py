"""Layers of PyTorch come back from their conversion to Core ML as PyTorch computes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.test_mil_resize import converted

LAYERS: list[tuple[str, nn.Module, tuple[int, ...]]] = [
    ("conv", nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9, 7)),
    ("conv same", nn.Conv2d(4, 6, (5, 3), padding="same", dilation=(1, 2)), (1, 4, 9, 7)),
    ("conv 1d", nn.Conv1d(4, 6, 3, dilation=2, padding=3), (2, 4, 9)),
    ("conv 3d", nn.Conv3d(2, 3, 3, stride=2, padding=1), (1, 2, 5, 6, 7)),
    ("transposed", nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, groups=2), (1, 4, 5, 6)),
    ("transposed more", nn.ConvTranspose2d(4, 2, 3, 2, 1, output_padding=1), (1, 4, 5, 6)),
    ("transposed 1d", nn.ConvTranspose1d(4, 2, 3, stride=3, dilation=2), (1, 4, 5)),
    ("average up", nn.AvgPool2d(3, 2, 1, ceil_mode=True), (1, 2, 8, 7)),
    ("average inner", nn.AvgPool2d(3, 2, 1, count_include_pad=False), (1, 2, 8, 7)),
    ("average 3d", nn.AvgPool3d(2, 2), (1, 2, 4, 5, 6)),
    ("max up", nn.MaxPool2d(3, 2, ceil_mode=True), (1, 2, 8, 7)),
    ("max 3d up", nn.MaxPool3d(3, 2, 1, ceil_mode=True), (1, 2, 8, 7, 6)),
    ("adaptive", nn.AdaptiveAvgPool2d((2, 2)), (1, 2, 8, 6)),
    ("layer norm", nn.LayerNorm((5, 6)), (2, 3, 5, 6)),
    ("group norm", nn.GroupNorm(2, 4), (2, 4, 5, 6)),
    ("instance norm", nn.InstanceNorm2d(3, affine=True), (2, 3, 5, 6)),
    ("batch norm", nn.BatchNorm2d(3), (2, 3, 5, 6)),
    ("linear", nn.Linear(6, 4), (2, 3, 6)),
    ("attention", nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
]


@pytest.mark.filterwarnings("ignore:Function _TORCH_OPS_REGISTRY:DeprecationWarning")
@pytest.mark.parametrize(
    ("layer", "shape"), [case[1:] for case in LAYERS], ids=[case[0] for case in LAYERS]
)
def test_a_layer_comes_back(layer: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for value in [*layer.parameters(), *layer.buffers()]:
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.1)
        x = torch.randn(shape)
        right = layer.eval()(x)
        result = converted(layer, x)
    np.testing.assert_allclose(result, right, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Function _TORCH_OPS_REGISTRY:DeprecationWarning")
@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_attention_comes_back(mask: str | None) -> None:
    class Attend(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            near = torch.ones(5, 5).tril() > 0
            kinds = {None: None, "bool": near, "float": near.float() * -3}
            return nn.functional.scaled_dot_product_attention(x, x * 2, x + 1, kinds[mask])

    x = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(converted(Attend(), x), Attend()(x), rtol=1e-4, atol=1e-4)

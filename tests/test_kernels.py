"""Kernels from traced graphs: counted as a trusted counter counts, fused as engines fuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from phoneward.export.kernels.names import kernels_of_module

if TYPE_CHECKING:
    from phoneward.profiles.kernels import StageKernels


def traced(module: nn.Module, *inputs: torch.Tensor) -> StageKernels:
    return kernels_of_module(module.eval(), inputs, "stage")


def macs(stage: StageKernels) -> int:
    return sum(kernel.macs for kernel in stage.kernels)


def counted(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Multiply-accumulates by PyTorch's own counter, which counts two operations for each."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module.eval()(*inputs)
    return counter.get_total_flops() // 2


class Function(nn.Module):
    def __init__(self, call: Callable[..., Any], *modules: nn.Module) -> None:
        super().__init__()
        self.call, self.parts = call, nn.ModuleList(modules)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.call(*self.parts, *inputs)


IMAGE = torch.rand(1, 8, 12, 12)
TOKENS = torch.rand(1, 10, 16)


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, int]:
    """A stack of convolutions, norms, activations, pools and residuals, and its weights.

    The weights are those that are left when every batch norm has become a bias.
    """
    channels, weights = 3, 0
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 5))):
        groups = draw(st.sampled_from([1, channels, 2 if channels % 2 == 0 else 1]))
        out = channels * draw(st.integers(1, 3)) if groups > 1 else draw(st.integers(1, 12))
        kernel, bias = draw(st.sampled_from([1, 3, 5])), draw(st.booleans())
        stride, norm = draw(st.sampled_from([1, 2])), draw(st.booleans())
        conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=bias)
        layers.append(conv)
        weights += conv.weight.numel() + out * (bias or norm)
        if norm:
            layers.append(nn.BatchNorm2d(out))
        layers.append(draw(st.sampled_from([nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Identity]))())
        channels = out
    if draw(st.booleans()):
        layers.append(nn.ConvTranspose2d(channels, 4, 2, 2))
        weights += sum(p.numel() for p in layers[-1].parameters())
        channels = 4
    head = nn.Linear(channels, 7)
    weights += head.weight.numel() + 7
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head), weights


@settings(max_examples=20, deadline=None)
@given(networks(), st.integers(9, 20))
def test_random_networks_count_as_flop_counter_and_state_dict_do(
    drawn: tuple[nn.Module, int], side: int
) -> None:
    network, weights = drawn
    image = torch.rand(1, 3, side, side)
    stage = traced(network, image)
    assert macs(stage) == counted(network, image)
    assert sum(kernel.params for kernel in stage.kernels) == weights
    assert not stage.unknown
    # every convolution and the head is one kernel, and so is the mean; nothing else is left
    convs = sum(isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)) for m in network.modules())
    assert len(stage.kernels) == convs + 2
    assert stage.kernels[0].reads == image.numel()


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        split = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = ((q @ k.transpose(-2, -1)) * 0.3).softmax(-1) @ v
        return x + self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 12), st.booleans())
def test_attention_counts_as_flop_counter_does(
    heads: int, width: int, length: int, fused: bool
) -> None:
    module = Attention(8 * heads * width, heads, fused)
    x = torch.rand(1, length, 8 * heads * width)
    stage = traced(module, x)
    written_out = 2 * length * length * x.shape[-1] + sum(
        length * m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear)
    )
    assert macs(stage) == written_out
    if not fused:
        assert macs(stage) == counted(module, x)
    kinds = Counter(kernel.kind for kernel in stage.kernels)
    assert (kinds["attention"], kinds["matmul"], kinds["softmax"]) == (
        (1, 0, 0) if fused else (0, 2, 1)
    )


def test_a_residual_block_is_one_kernel_a_convolution() -> None:
    conv, norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
    (kernel,) = traced(Function(lambda c, n, x: (n(c(x)) + x).relu(), conv, norm), IMAGE).kernels
    assert kernel.ops == ("aten.conv2d", "aten.batch_norm", "aten.add", "aten.relu")
    assert (kernel.kind, kernel.activation, kernel.module) == ("conv", "relu", "parts.0")
    assert kernel.reads == 2 * IMAGE.numel()
    assert kernel.params == 8 * 8 * 9 + 8
    assert (kernel.window, kernel.stride, kernel.groups) == ((3, 3), (1, 1), 1)
    assert kernel.in_shape == kernel.out_shape == tuple(IMAGE.shape)


def test_nothing_joins_a_value_that_others_read() -> None:
    conv = nn.Conv2d(8, 8, 1)

    def twice(conv: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = conv(x)
        return torch.cat((y, y.relu()), 1)

    stage = traced(Function(twice, conv), IMAGE)
    assert [k.kind for k in stage.kernels] == ["pointwise", "activation", "move"]


def test_a_value_that_is_returned_is_not_fused_away() -> None:
    conv = nn.Conv2d(8, 8, 1)

    def both(conv: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = conv(x)
        return y, y.relu()

    stage = traced(Function(both, conv), IMAGE)
    assert [k.kind for k in stage.kernels] == ["pointwise", "activation"]


CASES = {
    "views": (lambda x: x.reshape(1, 8, 144).unsqueeze(0).flatten(), []),
    "a permutation": (lambda x: x.permute(0, 2, 3, 1) + 1, ["move", "elementwise"]),
    "a permutation that moves nothing": (
        lambda x: x[:, :1].transpose(0, 1) * 2,
        ["move", "elementwise"],
    ),
    "a norm": (lambda x: functional.layer_norm(x, x.shape[2:]), ["norm"]),
    "gelu": (functional.gelu, ["activation"]),
    "resize": (lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"), ["resize"]),
    "global pool": (lambda x: functional.avg_pool2d(x, 12), ["reduce"]),
    "pool": (lambda x: functional.max_pool2d(x, 3, 2), ["pool"]),
    "gate": (
        lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
        ["reduce", "activation", "elementwise"],
    ),
    "silu by hand": (lambda x: x * x.sigmoid(), ["activation"]),
    "hardswish by hand": (lambda x: x * ((x + 3.0).clamp(0, 6) * (1 / 6)), ["activation"]),
    "gelu by hand": (lambda x: x * (x * (1.6 + 0.07 * (x * x))).sigmoid(), ["activation"]),
    "no gate": (
        lambda x: x * (x.sigmoid() + x.mean()),
        ["activation", "reduce", "elementwise", "elementwise"],
    ),
    "sums": (lambda x: (x + 1) * 2 - 3, ["elementwise"]),
    "constants": (lambda x: x + torch.arange(12.0).exp(), ["elementwise"]),
}


@pytest.mark.parametrize("name", CASES)
def test_ops_become_kernels(name: str) -> None:
    function, kinds = CASES[name]
    stage = traced(Function(function), IMAGE)
    assert [kernel.kind for kernel in stage.kernels] == kinds
    assert not stage.unknown


def test_an_activation_by_hand_joins_its_convolution() -> None:
    module = Function(lambda c, x: (lambda y: y * y.sigmoid())(c(x)), nn.Conv2d(8, 8, 1))
    (kernel,) = traced(module, IMAGE).kernels
    assert (kernel.kind, kernel.activation) == ("pointwise", "silu")
    assert kernel.ops == ("aten.conv2d", "aten.sigmoid", "aten.mul")


def test_what_no_rule_knows_is_counted() -> None:
    stage = traced(Function(lambda x: torch.linalg.inv(torch.linalg.inv(x)).relu()), IMAGE)
    assert stage.unknown == {"aten.linalg_inv": 2}
    assert [kernel.kind for kernel in stage.kernels] == ["activation"]


def test_a_frozen_norm_before_a_convolution_stays() -> None:
    norm, conv = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
    stage = traced(Function(lambda n, c, x: c(n(x).relu()), norm, conv), IMAGE)
    first, second = stage.kernels
    assert (first.kind, first.ops) == ("elementwise", ("aten.batch_norm", "aten.relu"))
    assert first.params == 16
    assert second.kind == "pointwise"


def test_padding_joins_the_convolution_it_is_for() -> None:
    conv = nn.Conv2d(8, 8, 3, 2)
    module = Function(lambda c, x: c(functional.pad(x, (0, 1, 0, 1))), conv)
    (kernel,) = traced(module, IMAGE).kernels
    assert kernel.ops == ("aten.conv2d", "aten.pad")
    assert (kernel.reads, kernel.in_shape) == (IMAGE.numel(), tuple(IMAGE.shape))


def test_layer_scale_and_residual_join_the_matrix_before_them() -> None:
    linear, scale = nn.Linear(16, 16), nn.Parameter(torch.ones(16))
    module = Function(lambda m, x: x + scale.detach() * m(x), linear)
    (kernel,) = traced(module, TOKENS).kernels
    assert kernel.ops == ("aten.linear", "aten.mul", "aten.add")
    assert kernel.params == 16 * 17


def test_a_constant_operand_makes_a_product_linear() -> None:
    weights = torch.rand(16, 4)
    (kernel,) = traced(Function(lambda x: torch.einsum("blc,cd->bld", x, weights)), TOKENS).kernels
    assert (kernel.kind, kernel.macs, kernel.params) == ("linear", 10 * 16 * 4, 64)


def test_one_dimension_has_a_window_of_height_one() -> None:
    conv = nn.Conv1d(16, 8, 3, 2)
    (kernel,) = traced(conv, TOKENS.transpose(1, 2)).kernels
    assert (kernel.window, kernel.stride, kernel.macs) == ((1, 3), (1, 2), 4 * 8 * 16 * 3)


LAYOUTS: dict[str, tuple[Callable[[torch.Tensor], Any], list[str]]] = {
    "undone": (lambda last: (last * 2 + 1).permute(0, 3, 1, 2), ["elementwise"]),
    "undone by rows": (
        lambda last: (
            (last.reshape(1, 12, 96) * torch.ones(96)).reshape(last.shape).permute(0, 3, 1, 2)
        ),
        ["elementwise"],
    ),
    "turned": (lambda last: (last * 2).permute(0, 3, 2, 1), ["move", "elementwise", "move"]),
    "read twice": (
        lambda last: ((last * 2).permute(0, 3, 1, 2), last.amax()),
        ["move", "elementwise", "move", "reduce"],
    ),
    "returned": (
        lambda last: (lambda y: (y, y.permute(0, 3, 1, 2)))(last * 2),
        ["move", "elementwise", "move"],
    ),
    "normalised": (
        lambda last: functional.layer_norm(last, (8,)).permute(0, 3, 1, 2),
        ["move", "norm", "move"],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_of_the_input_that_is_undone_costs_nothing(name: str) -> None:
    function, kinds = LAYOUTS[name]
    stage = traced(Function(lambda x: function(x.permute(0, 2, 3, 1))), IMAGE)
    assert [kernel.kind for kernel in stage.kernels] == kinds
    assert stage.kernels[0].reads == stage.kernels[0].writes == IMAGE.numel()

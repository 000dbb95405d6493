"""Packages that coremltools.optimize compressed, against PyTorch with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from phoneward.runtime.engines.mil.program import Program
from tests.mil_packages import convert, quietly, trace

IMAGE = np.random.default_rng(5).uniform(size=(1, 3, 32, 32)).astype(np.float32)
OLD, NEW = ct.target.iOS16, ct.target.iOS18
Compress = Callable[[Any], Any]


class Net(nn.Module):
    """Two convolutions and a product, with weights that spread like trained ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 3, 2, 1)
        self.second = nn.Conv2d(16, 32, 3, 2, 1)
        self.head = nn.Linear(32, 10)
        with torch.no_grad():
            for layer in (self.first, self.second, self.head):
                # heavy tails, and channels of unlike size
                layer.weight.mul_(torch.randn_like(layer.weight).abs())
                layer.weight.mul_(
                    torch.rand(layer.weight.shape[0], *[1] * (layer.weight.dim() - 1)) * 4
                )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).relu()).relu().mean((2, 3)))


def quantized(**options: Any) -> Compress:
    joint = options.pop("joint_compression", False)
    config = cto.OptimizationConfig(cto.OpLinearQuantizerConfig(weight_threshold=0, **options))
    return lambda model: cto.linear_quantize_weights(model, config, joint_compression=joint)


def palettized(joint: bool = False, **options: Any) -> Compress:
    kind = cto.OpPalettizerConfig(mode="kmeans", weight_threshold=0, **options)
    config = cto.OptimizationConfig(kind)
    return lambda model: cto.palettize_weights(model, config, joint_compression=joint)


def pruned(share: float) -> Compress:
    kind = cto.OpMagnitudePrunerConfig(target_sparsity=share, weight_threshold=0)
    return lambda model: cto.prune_weights(model, cto.OptimizationConfig(kind))


def both(first: Compress, second: Compress) -> Compress:
    return lambda model: second(first(model))


AFFINE, LUT, SPARSE = (
    "constexpr_affine_dequantize",
    "constexpr_lut_to_dense",
    "constexpr_sparse_to_dense",
)
SCALE, SPARSE_LUT, SPARSE_SCALE = (
    "constexpr_blockwise_shift_scale",
    "constexpr_lut_to_sparse",
    "constexpr_sparse_blockwise_shift_scale",
)
CASES: dict[str, tuple[Any, Compress, set[str]]] = {
    "linear": (OLD, quantized(mode="linear"), {AFFINE}),
    "symmetric": (OLD, quantized(mode="linear_symmetric", dtype="uint8"), {AFFINE}),
    "channels": (NEW, quantized(mode="linear"), {SCALE}),
    "tensor": (NEW, quantized(granularity="per_tensor"), {SCALE}),
    "blocks of int4": (
        NEW,
        quantized(dtype="int4", granularity="per_block", block_size=16),
        {SCALE},
    ),
    "blocks of uint4": (
        NEW,
        quantized(mode="linear", dtype="uint4", granularity="per_block", block_size=8),
        {SCALE},
    ),
    "palette": (OLD, palettized(nbits=6), {LUT}),
    "palette of one bit": (OLD, palettized(nbits=1), {LUT}),
    "groups": (
        NEW,
        palettized(nbits=3, granularity="per_grouped_channel", group_size=8),
        {LUT},
    ),
    "vectors": (NEW, palettized(nbits=2, cluster_dim=2), {LUT}),
    "palette and scales": (NEW, palettized(nbits=4, enable_per_channel_scale=True), {LUT, SCALE}),
    "sparse": (OLD, pruned(0.6), {SPARSE}),
    "sparse, new": (NEW, pruned(0.6), {SPARSE}),
    "sparse palette": (NEW, both(pruned(0.6), palettized(True, nbits=4)), {SPARSE_LUT, SPARSE}),
    "sparse steps": (
        NEW,
        both(pruned(0.6), quantized(joint_compression=True)),
        {SPARSE_SCALE, SPARSE},
    ),
    "quantized palette": (
        NEW,
        both(palettized(nbits=4), quantized(granularity="per_tensor", joint_compression=True)),
        {LUT, SCALE},
    ),
}


@pytest.fixture(scope="module")
def plain() -> dict[Any, Any]:
    """The network, uncompressed, in both generations."""
    traced = trace(Net(), IMAGE)
    kinds = [ct.TensorType(name="x", shape=IMAGE.shape)]
    return {
        target: convert(
            traced,
            inputs=kinds,
            minimum_deployment_target=target,
            compute_precision=ct.precision.FLOAT32,
        )
        for target in (OLD, NEW)
    }


def decompressed(model: Any) -> Net:
    """PyTorch with the weights that coremltools unpacks from a compressed model."""
    net, unpacked = Net(), quietly(lambda: cto.decompress_weights(model))
    layers = iter((net.first, net.second, net.head))
    for op in unpacked._mil_program.functions["main"].operations:
        if op.op_type in ("conv", "linear"):
            layer = next(layers)
            layer.weight.data = torch.from_numpy(np.array(op.weight.val)).reshape(
                layer.weight.shape
            )
            layer.bias.data = torch.from_numpy(np.array(op.bias.val))
    assert next(layers, None) is None
    return net


@pytest.mark.parametrize("name", CASES)
def test_it_computes_with_the_decompressed_weights(
    name: str, plain: dict[Any, Any], tmp_path: Path
) -> None:
    target, compress, ops = CASES[name]
    model = quietly(lambda: compress(plain[target]))
    path = tmp_path / "a.mlpackage"
    model.save(str(path))
    program = Program.load(path)
    assert {op for op in program.package.op_types() if op.startswith("constexpr")} == ops

    (scores,) = program({"x": IMAGE}).values()
    with torch.no_grad():
        expected = decompressed(model)(torch.from_numpy(IMAGE)).numpy()
        before = Net()(torch.from_numpy(IMAGE)).numpy()
    span = np.ptp(expected)
    assert np.abs(scores - expected).max() <= 1e-5 * span
    # and the compression does change the answer, so that the agreement means something
    assert np.abs(scores - before).max() > 1e-4 * span

"""Small real models that several test files run: one network, converted to every format.

The network is not symmetrical on purpose: two inputs and two outputs of different shapes and one
pair of the same shape, so that a swap of names, order or axes changes the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from phoneward.spec import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

CLASSES = 10


@dataclass(frozen=True)
class Sample:
    """One artifact with its tensors in order, example inputs and PyTorch's answers."""

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tensors: Arrays
    expected: Arrays


INPUTS = (
    TensorSpec(name="image", shape=(1, 3, 32, 32), layout="NCHW"),
    TensorSpec(name="bias", shape=(1, CLASSES), layout="NC"),
)
OUTPUTS = (
    TensorSpec(name="zz_logits", shape=(1, CLASSES), layout="NC"),
    TensorSpec(name="aa_plain", shape=(1, CLASSES), layout="NC"),
    TensorSpec(name="map", shape=(1, 8, 16, 16), layout="NCHW"),
)


def _network() -> Any:
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.head = nn.Linear(8, CLASSES)

        def forward(self, image: Any, bias: Any) -> Any:
            features = self.conv(image).relu()
            plain = self.head(features.mean((2, 3)))
            return plain + bias, plain, features

    torch.manual_seed(0)
    return Network().eval()


def _to_tflite(model: Any, example: tuple[Any, ...], path: Path) -> None:
    import litert_torch

    litert_torch.convert(model, example).export(str(path))


def _to_executorch(model: Any, example: tuple[Any, ...], path: Path) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(
        torch.export.export(model, example), partitioner=[XnnpackPartitioner()]
    )
    path.write_bytes(edge.to_executorch().buffer)


def _to_onnx(model: Any, example: tuple[Any, ...], path: Path) -> None:
    import torch

    program = torch.onnx.export(
        model,
        example,
        input_names=[spec.name for spec in INPUTS],
        output_names=[spec.name for spec in OUTPUTS],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    path.write_bytes(program.model_proto.SerializeToString())


_CONVERTERS = {"tflite": _to_tflite, "executorch": _to_executorch, "onnx": _to_onnx}


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    """The network in every format that this machine can run, by the format's name."""
    import torch

    from phoneward.quiet import noise_to

    folder = tmp_path_factory.mktemp("samples")
    model = _network()
    example = torch.rand(1, 3, 32, 32), torch.rand(1, CLASSES)
    with torch.no_grad():
        answers = model(*example)
    made = {}
    for name, convert in _CONVERTERS.items():
        path = folder / f"network.{name}"
        with noise_to(folder / f"{name}.log"):
            convert(model, example, path)
        made[name] = Sample(
            path,
            INPUTS,
            OUTPUTS,
            {spec.name: tensor.numpy() for spec, tensor in zip(INPUTS, example, strict=True)},
            {spec.name: tensor.numpy() for spec, tensor in zip(OUTPUTS, answers, strict=True)},
        )
    return made

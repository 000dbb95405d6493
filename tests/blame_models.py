"""Small models as Core ML packages, and faults planted into packages."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch
from torch import Tensor, nn

from phoneward.quiet import noise_to
from phoneward.runtime.engines.mil.modules import plain


def exported(module: nn.Module, *inputs: Tensor) -> torch.export.ExportedProgram:
    """The program that the Core ML backend would convert."""
    with torch.no_grad():
        program = torch.export.export(module.eval(), inputs, strict=False)
        return program.run_decompositions({})


def package(source: Any, path: Path, *, half: bool = False, **settings: Any) -> Path:
    """What plain `ct.convert` makes of a program."""
    precision = ct.precision.FLOAT16 if half else ct.precision.FLOAT32
    with noise_to(path.with_suffix(".log")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ct.convert(
            source,
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=settings.pop("compute_precision", precision),
            skip_model_load=True,
            **settings,
        ).save(str(path))
    return path


def tamper(path: Path, op: str, argument: str, value: Any) -> None:
    """Give one op of a package another value for a constant argument; no other op sees it."""
    file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = ct.proto.Model_pb2.Model()
    spec.ParseFromString(file.read_bytes())
    for operations in _blocks(spec):
        for index, found in enumerate(operations):
            if plain(found.outputs[0].name) != op or argument not in found.inputs:
                continue
            binding = found.inputs[argument].arguments[0]
            constant = copy.deepcopy(_producer(operations, binding.name))
            constant.outputs[0].name = binding.name = f"tampered_{argument}_{index}"
            constant.attributes["name"].immediateValue.tensor.strings.values[0] = binding.name
            _set(constant.attributes["val"].immediateValue.tensor, value)
            operations.insert(index, constant)
            file.write_bytes(spec.SerializeToString())
            return
    raise KeyError(f"{path} has no op '{op}' with '{argument}'")


def _blocks(spec: Any) -> Iterator[Any]:
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            yield block.operations


def _producer(operations: Any, name: str) -> Any:
    return next(op for op in operations if op.outputs[0].name == name)


def _set(tensor: Any, value: Any) -> None:
    kind = tensor.WhichOneof("value")
    if kind == "bytes":  # half precision
        tensor.bytes.values = np.asarray(value, np.float16).tobytes()
        return
    values = getattr(tensor, kind).values
    del values[:]
    values.extend(np.asarray(value).reshape(-1).tolist())


class Attention(nn.Module):
    """A norm, scores of a square, and a projection: x (1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.norm = nn.LayerNorm(8)
        self.project = nn.Linear(8, 8)
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.softmax(self.project(self.norm(x)) @ x, dim=-1)
        return self.out((scores @ x).transpose(1, 2))


class Upsampling(nn.Module):
    """A convolution, upsampling by 2 and another convolution: x (1, 3, 8, 8)."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.mode = mode
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        up = nn.functional.interpolate(y, scale_factor=2, mode=self.mode, align_corners=False)
        return self.second(up)


class BicubicByMatmul(Upsampling):
    """The same, upsampling bicubically by two products, as coremltools knows no bicubic op."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__("bicubic")
        rows = torch.eye(8)[None, :, :, None].expand(1, 8, 8, 2)
        wide = nn.functional.interpolate(rows, size=(16, 2), mode="bicubic", align_corners=False)
        self.register_buffer("kernel", wide[0, :, :, 0].T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.kernel @ (self.first(x) @ self.kernel.T))


class Normed(nn.Module):
    """Convolutions with batch norms, which coremltools fuses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 4, 1),
            nn.BatchNorm2d(4),
        )
        for norm in (self.body[1], self.body[4]):
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Centred(nn.Module):
    """Two equal convolutions with batch norms and a mean that is taken off: x (1, 3, 8, 8)."""

    def __init__(self, axis: int = 2) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.axis = axis
        self.one = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
        self.two = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.one(x))
        return self.two(y - y.mean(self.axis, keepdim=True))


class Loud(nn.Module):
    """Squares and adds up beyond what half precision holds, then takes the root: x (1, 4, 16)."""

    def __init__(self, loudness: float = 300.0) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.inner = nn.Linear(16, 16)
        self.loudness = loudness

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x) * self.loudness
        return y / torch.sqrt((y * y).sum(-1, keepdim=True))

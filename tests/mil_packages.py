"""Small Core ML packages, made and then changed."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import coremltools as ct
import numpy as np
import torch
from coremltools import proto
from coremltools.converters.mil import Builder as mb
from numpy.typing import NDArray
from torch import nn

Made = TypeVar("Made")

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
MANIFEST = "Manifest.json"


def quietly(make: Callable[[], Made]) -> Made:
    """Call it; what coremltools and PyTorch warn of on the way is not the point here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def convert(model: Any, **options: Any) -> Any:
    """Convert as anyone would."""
    return quietly(lambda: ct.convert(model, skip_model_load=True, **options))


def trace(model: nn.Module, example: NDArray[Any] | tuple[NDArray[Any], ...]) -> Any:
    """Trace a model on numpy arrays."""
    arrays = example if isinstance(example, tuple) else (example,)
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    return quietly(lambda: torch.jit.trace(model.eval(), tensors))


def convnet(path: Path) -> Path:
    """Write the package of a convolution, a product and a softmax: x (1, 3, 8, 8) to scores."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    matrix = rng.normal(size=(5, 144)).astype(np.float32) / 12

    @mb.program(input_specs=[mb.TensorSpec((1, 3, 8, 8))], opset_version=ct.target.iOS17)
    def program(x: Any) -> Any:
        maps = mb.relu(x=mb.conv(x=x, weight=kernel, name="maps"), name="rectified")
        flat = mb.reshape(x=maps, shape=(1, -1))
        return mb.softmax(x=mb.linear(x=flat, weight=matrix), axis=-1, name="scores")

    convert(program, minimum_deployment_target=ct.target.iOS17).save(str(path))
    return path


def read(package: Path) -> Any:
    """The `Model` message of a package."""
    spec = proto.Model_pb2.Model()
    spec.ParseFromString((package / MODEL).read_bytes())
    return spec


def changed(package: Path, path: Path, change: Callable[[Any], None]) -> Path:
    """Copy a package to `path` with its `Model` message changed."""
    shutil.copytree(package, path, symlinks=True)
    spec = read(package)
    change(spec)
    (path / MODEL).write_bytes(spec.SerializeToString())
    return path


def operations(spec: Any, function: str = "main") -> Any:
    """The operations of a function's block, which can be changed."""
    main = spec.mlProgram.functions[function]
    return main.block_specializations[main.opset].operations


def operation(spec: Any, kind: str) -> Any:
    """The first operation of a type."""
    return next(op for op in operations(spec) if op.type == kind)

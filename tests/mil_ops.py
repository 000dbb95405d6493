"""Single ops of ML programs: built with coremltools, run by the engine, held against an oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Program as MilProgram
from coremltools.converters.mil.mil import types
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from phoneward.runtime.engines.mil.compiler import compile_function
from phoneward.runtime.engines.mil.interpreter import Mode, walk
from phoneward.runtime.engines.mil.numerics import Numerics
from phoneward.runtime.engines.mil.signature import tensor

_TYPES = {"float32": types.fp32, "float16": types.fp16, "int32": types.int32, "bool": types.bool}


def build(
    body: Callable[..., Any], arrays: Mapping[str, Any], target: Any = ct.target.iOS18
) -> MilProgram:
    """A program whose inputs are `arrays` (their shapes and dtypes); `body` takes its variables."""
    specs = [
        mb.TensorSpec(shape=np.shape(array), dtype=_TYPES[str(np.asarray(array).dtype)])
        for array in arrays.values()
    ]
    names = ", ".join(arrays)
    # coremltools takes the names of the inputs from the function's own parameters
    function = eval(f"lambda {names}: body({names})", {"body": body})
    return mb.program(input_specs=specs, opset_version=target)(function)


def run(
    body: Callable[..., Any],
    arrays: Mapping[str, Any],
    target: Any = ct.target.iOS18,
    numerics: Numerics = Numerics.DECLARED,
) -> list[Any]:
    """Build a program and run it; returns its results, carried (tensors, texts, lists)."""
    return compute(build(body, arrays, target), arrays, numerics)


def compute(
    program: MilProgram, arrays: Mapping[str, Any], numerics: Numerics = Numerics.DECLARED
) -> list[Any]:
    """Run a program that was built; returns its results, carried."""
    plan = compile_function(program.functions["main"])
    values = {**plan.constants, **{var: tensor(arrays[var.name]) for var in plan.inputs}}
    with torch.inference_mode():
        for _ in walk(plan, values, Mode.of(numerics)):
            pass
    return [values[var] for var in plan.outputs]


def one(body: Callable[..., Any], *positional: Any, **arrays: Any) -> Tensor:
    """Run a program with one result and return it as a tensor; `arrays` by parameter name."""
    (result,) = run(body, arrays)
    assert isinstance(result, Tensor)
    return result


def inferred(body: Callable[[], Any], target: Any = ct.target.iOS18) -> Sequence[Any]:
    """What coremltools itself computes for a body without inputs (`value_inference`)."""

    def main(dummy: Any) -> Any:
        return body()

    function = build(main, {"dummy": np.zeros(1, np.float32)}, target).functions["main"]
    return [var.val for var in function.outputs]


class Largest(TorchDispatchMode):
    """Remembers the size in bytes of the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.size = max(self.size, result.nbytes)
        return result

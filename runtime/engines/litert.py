"""LiteRT: TFLite models, through ai-edge-litert or the older tflite-runtime."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.errors import EngineError
from phoneward.runtime.engines.session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.spec import TensorSpec

# names that tell no more than a position: those of litert-torch
_POSITIONAL = re.compile(r"(args|output)_\d+")
_PACKAGES = ("ai_edge_litert", "tflite_runtime")


class LiteRTSession(Session):
    """The classic interpreter with its default XNNPACK delegate.

    tflite-runtime, all that an old board may have, has the same interface and is used where
    ai-edge-litert is not installed. It trusts its files: 2.14 ends the process over a truncated
    or damaged one, where ai-edge-litert raises. `Classifier` and `check_bundle` therefore compare
    checksums first; whoever opens sessions directly on such a board must do the same.
    """

    def _load(self) -> None:
        package = next(p for p in _PACKAGES if importlib.util.find_spec(p))
        module = importlib.import_module(f"{package}.interpreter")
        self._interpreter: Any = module.Interpreter(
            model_path=str(self.path), num_threads=self.threads
        )
        self._interpreter.allocate_tensors()
        self._in, self._out = self._indices()

    def _run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        for index, array in zip(self._in, arrays, strict=True):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        return [np.array(self._interpreter.get_tensor(index)) for index in self._out]

    def _unload(self) -> None:
        del self._interpreter

    def _indices(self) -> tuple[list[int], list[int]]:
        """Tensor numbers by signature name where the file has our names, else by position."""
        interpreter = self._interpreter
        by_position = interpreter.get_input_details(), interpreter.get_output_details()
        by_name: tuple[Any, Any] = ({}, {})
        if len(interpreter.get_signature_list()) == 1:
            runner = interpreter.get_signature_runner()
            by_name = runner.get_input_details(), runner.get_output_details()
        return (
            _ordered(self.inputs, by_position[0], by_name[0]),
            _ordered(self.outputs, by_position[1], by_name[1]),
        )


def _ordered(specs: Sequence[TensorSpec], by_position: Any, by_name: Any) -> list[int]:
    names = [spec.name for spec in specs]
    if set(by_name) == set(names):
        return [by_name[name]["index"] for name in names]
    if by_name and not all(_POSITIONAL.fullmatch(name) for name in by_name):
        raise EngineError(f"the file's tensors are {sorted(by_name)} where {names} are meant")
    if len(by_position) != len(names):
        raise EngineError(f"the file has {len(by_position)} tensors where {names} are meant")
    return [detail["index"] for detail in by_position]

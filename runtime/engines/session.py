"""A loaded artifact, the same to its user whichever engine runs it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.closing import Closing
from phoneward.errors import EngineError, TensorMismatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.spec import TensorSpec


class Session(Closing):
    """Runs one artifact. Not for use by several threads at once.

    A session is called with all inputs by name and returns all outputs by name. The arrays it
    returns are its caller's: a later call does not change them. Use it as a context manager, or
    close it; a closed session refuses to run.
    """

    def __init__(
        self,
        path: Path,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        threads: int,
    ) -> None:
        if threads < 1:
            raise EngineError(f"threads must be at least 1, not {threads}")
        self.path, self.threads = path, threads
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._closed = False
        try:
            self._load()
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"{path}: cannot be loaded: {_first_line(error)}") from error

    def __call__(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once.

        Raises:
            TensorMismatch: a tensor is missing, unknown, or has another shape or dtype.
            EngineError: the session is closed, or the engine failed.
        """
        if self._closed:
            raise EngineError(f"{self.path}: the session is closed")
        names = [spec.name for spec in self.inputs]
        if set(tensors) != set(names):
            raise TensorMismatch(f"takes the tensors {', '.join(names)}; got {', '.join(tensors)}")
        for spec in self.inputs:
            spec.check(tensors[spec.name])
        # engines want plain memory; torch also wants to be allowed to write to it
        arrays = [np.require(tensors[name], requirements=("C", "W")) for name in names]
        try:
            results = self._run(arrays)
        except Exception as error:
            raise EngineError(f"{self.path}: failed: {_first_line(error)}") from error
        return self._named(results)

    def _named(self, results: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if len(results) != len(self.outputs):
            raise EngineError(
                f"{self.path}: returned {len(results)} outputs, not {len(self.outputs)}"
            )
        for spec, result in zip(self.outputs, results, strict=True):
            try:
                spec.check(result)
            except TensorMismatch as error:
                raise EngineError(f"{self.path} is not what its manifest says: {error}") from error
        return {spec.name: array for spec, array in zip(self.outputs, results, strict=True)}

    def close(self) -> None:
        """Free the engine's memory; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._unload()

    @abstractmethod
    def _load(self) -> None:
        """Load `self.path`; may raise anything."""

    @abstractmethod
    def _run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run on arrays in the order of `self.inputs`; return new arrays in that of `outputs`."""

    @abstractmethod
    def _unload(self) -> None:
        """Drop every reference to the engine."""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

"""A model cut into stages, run by name, with the time that each takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from phoneward.errors import BundleError, EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.spec import TensorSpec

    Arrays = Mapping[str, NDArray[Any]]


class Runner(Protocol):
    """A stage that can be run, whatever runs it: an engine's `Session`, or anything alike."""

    @property
    def inputs(self) -> Sequence[TensorSpec]: ...

    @property
    def outputs(self) -> Sequence[TensorSpec]: ...

    def __call__(self, tensors: Arrays) -> Arrays:
        """Run on all inputs by name; returns new arrays, all outputs by name."""
        ...


class Stages:
    """The stages of one model; not for use by several threads at once."""

    def __init__(self, runners: Mapping[str, Runner], names: Sequence[str]) -> None:
        """Take a runner for each name; raises `BundleError` if one is missing."""
        for name in names:
            if name not in runners:
                raise BundleError(f"the stage '{name}' is missing; there are: {', '.join(runners)}")
        self._runners = {name: runners[name] for name in names}
        self._timings: dict[str, float] = {}

    def __getitem__(self, name: str) -> Runner:
        return self._runners[name]

    @property
    def timings(self) -> Mapping[str, float]:
        """Milliseconds by stage since `begin`."""
        return MappingProxyType(self._timings)

    def begin(self) -> None:
        """Count from zero; what `timings` returned before stays as it was."""
        self._timings = {}

    def run(self, name: str, tensors: Arrays) -> Arrays:
        """Run a stage; raises `EngineError` if it fails or not all that it returns is finite."""
        start = time.perf_counter()
        outputs = self._runners[name](tensors)
        taken = 1e3 * (time.perf_counter() - start)
        self._timings[name] = self._timings.get(name, 0.0) + taken
        for output, array in outputs.items():
            if not np.isfinite(array).all():
                raise EngineError(f"stage '{name}': not all of '{output}' is finite")
        return outputs

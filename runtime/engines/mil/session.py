"""The engine `mil`: Core ML packages on any machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from phoneward.errors import EngineError
from phoneward.runtime.engines.session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray


class MilSession(Session):
    """An ML program op by op: for checking what a package computes, not for speed.

    Every result is rounded to the type that the program declares, with sums in float32. Image
    inputs take whole numbers, as in Core ML: a float32 array (1, 3, H, W) of RGB 0 to 255, or
    (1, 1, H, W) of grey, becomes an 8-bit image. States start at zero and live as long as the
    session.
    """

    def _load(self) -> None:
        from phoneward.runtime.engines.mil.program import Program

        program = Program.load(self.path)
        for kind, specs, ports in (
            ("inputs", self.inputs, program.inputs),
            ("outputs", self.outputs, program.outputs),
        ):
            names = {port.name for port in ports}
            if absent := [spec.name for spec in specs if spec.name not in names]:
                raise EngineError(f"the package's {kind} are {sorted(names)}, without {absent}")
            labels = {port.name for port in ports if port.dtype is None}
            if texts := [spec.name for spec in specs if spec.name in labels]:
                raise EngineError(f"the package's {kind} {texts} are labels or scores, no tensors")
        self._program: Any = program

    def _run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        from phoneward.runtime.engines.mil.threads import torch_threads

        feeds = {spec.name: array for spec, array in zip(self.inputs, arrays, strict=True)}
        with torch_threads(self.threads):
            answers = self._program(feeds)
        return [answers[spec.name] for spec in self.outputs]

    def _unload(self) -> None:
        del self._program

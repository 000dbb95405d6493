"""A function of a package, ready to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.compiler import compile_function
from phoneward.runtime.engines.mil.interpreter import Mode, Results, Values, walk
from phoneward.runtime.engines.mil.numerics import Numerics, rounded
from phoneward.runtime.engines.mil.ops import OPS
from phoneward.runtime.engines.mil.package import Package, open_package
from phoneward.runtime.engines.mil.plan import Plan, Step
from phoneward.runtime.engines.mil.ports import (
    Port,
    check_ports,
    from_carried,
    in_float,
    ports,
    to_carried,
)
from phoneward.runtime.engines.mil.signature import State


@dataclass
class Program:
    """A function of an ML program; `states` live from call to call until `reset`.

    >>> program = Program.load(Path("classify-fp16.mlpackage"))
    >>> program(image=pixels)["logits"]
    """

    package: Package
    function: str
    plan: Plan
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: dict[str, State] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str, function: str | None = None) -> Program:
        """Read a package and prepare one of its functions, by default the one Core ML runs.

        Raises:
            EngineError: the package is not sound, has no such function, or uses an op that is
                not known here, which is named.
        """
        package = open_package(Path(path))
        name = function or package.default_function
        if name not in package.functions:
            raise EngineError(
                f"{path}: no function '{name}'; it has {', '.join(package.functions)}"
            )
        if missing := unknown_ops(package, name):
            raise EngineError(f"{path}: ops that are not known here: {', '.join(missing)}")
        source = package.program().functions[name]
        try:
            plan = compile_function(source)
            inputs, outputs = ports(package, name)
            check_ports(inputs, outputs, plan)
        except EngineError as error:
            raise EngineError(f"{path}: {error}") from error
        program = cls(package, name, plan, inputs, outputs)
        program.reset()
        return program

    def reset(self) -> None:
        """Set every state to zeros, as a new state of Core ML's is."""
        self.states = {
            var.name: State(torch.zeros([size or 1 for size in var.shape or ()]))
            for var in self.plan.inputs
            if var.state
        }

    def fresh(self) -> Program:
        """Return the same program with states of its own, which are zeros."""
        copy = replace(self, states={})
        copy.reset()
        return copy

    def __call__(
        self, arrays: Mapping[str, Any], numerics: Numerics = Numerics.DECLARED
    ) -> dict[str, Any]:
        """Run once on numpy arrays by input name; returns new arrays by output name.

        An image input takes (1, C, H, W) in the order RGB, 0 to 255, rounded to whole numbers as
        Core ML's images are. Labels come back as text or numbers, their scores as a dictionary;
        float16 outputs as float32 if `numerics` is FLOAT32. A call that fails may have changed
        states.

        Raises:
            EngineError: an input is missing, unknown or of another shape, or an op failed.
        """
        given = to_carried(self.inputs, arrays)
        values = self._begin(given, numerics)
        with torch.inference_mode():
            for _ in walk(self.plan, values, Mode.of(numerics)):
                pass
        answers = {var.name: values[var] for var in self.plan.outputs}
        # half precision would round, and end at 65504
        exact = numerics is Numerics.FLOAT32
        return from_carried(in_float(self.outputs) if exact else self.outputs, answers)

    def walk(
        self, arrays: Mapping[str, Any], numerics: Numerics = Numerics.DECLARED
    ) -> Iterator[tuple[Step, Results]]:
        """Run step by step: yields each step of the function with its results, carried.

        Branches and loops are one step each. Raises as a call does.
        """
        steps = walk(
            self.plan, self._begin(to_carried(self.inputs, arrays), numerics), Mode.of(numerics)
        )
        while True:
            # not around the yield: the mode would leak to the caller
            with torch.inference_mode():
                answer = next(steps, None)
            if answer is None:
                return
            yield answer

    def _begin(self, given: Mapping[str, Any], numerics: Numerics) -> Values:
        values: Values = dict(self.plan.constants)
        for var in self.plan.inputs:
            if var.state:
                values[var] = self.states[var.name]
            else:
                rounds = var.half and numerics is not Numerics.FLOAT32
                values[var] = rounded(given[var.name]) if rounds else given[var.name]
        return values


def unknown_ops(package: Package, function: str | None = None) -> list[str]:
    """Op types of a package (or of one of its functions) that no function here computes."""
    # coremltools reads a write of a state as an op of its own, `coreml_update_state`
    return sorted(set(package.op_types(function)) - set(OPS) - {"const", "write_state"})

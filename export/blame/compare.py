"""A Core ML package against PyTorch, op by op, each op on PyTorch's own inputs.

Every op that is paired with a node is run in float32 on what PyTorch has for its inputs, so that
errors do not add up and each fault is found by itself. Passes of coremltools may move work from
one op to the next (a norm into a convolution, a transposition past an activation): an op that
differs from its node is therefore only suspected. It is cleared if what reads it agrees with
PyTorch's once it is given the op's own result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from phoneward.errors import EngineError
from phoneward.export.blame.pairing import (
    Pairs,
    computing,
    module_of,
    modules_of,
    pair,
    skipped_before,
    steps_between,
    user_inputs,
)
from phoneward.export.blame.report import Blame, BlameReport
from phoneward.export.blame.values import brief, run_nodes
from phoneward.runtime.engines.mil.interpreter import Mode, Results, execute
from phoneward.runtime.engines.mil.modules import Modules
from phoneward.runtime.engines.mil.naming import CASTS
from phoneward.runtime.engines.mil.numerics import Numerics
from phoneward.runtime.engines.mil.ports import to_carried
from phoneward.runtime.engines.mil.precision import compare, precision_of
from phoneward.runtime.engines.mil.program import Program

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

    from phoneward.runtime.engines.mil.plan import Step, Variable

BOUND = 2e-5
"""Agreement of an op in single precision, on PyTorch's own inputs.

Ops of sound packages are off by less than 1e-6 of the range. The gate's 1e-4, for a whole network,
would let a GELU's approximation by tanh pass.
"""
HALF_BOUND = 2.0**-9
"""With weights in half precision, which resolves 2^-11: folded ones were rounded elsewhere."""
_NAMED = 0.5
_IN_FLOAT = Mode.of(Numerics.FLOAT32)


def blame(package: Path, exported: ExportedProgram, inputs: Sequence[Any]) -> BlameReport:
    """Name the ops of a package that do not compute what PyTorch does.

    Args:
        package: a `.mlpackage` that was converted from `exported`, by Phoneward's backend or by
            coremltools alone.
        exported: the very program that was converted (after `run_decompositions`), on the CPU.
        inputs: one sample, arrays in the order of the program's inputs.

    Raises:
        EngineError: the package cannot be run, or takes other inputs.
    """
    program = Program.load(package)
    if len(inputs) != len(program.inputs) or len(inputs) != len(user_inputs(exported)):
        raise EngineError(
            f"{package}: takes {len(program.inputs)} inputs and PyTorch's program "
            f"{len(user_inputs(exported))}; got {len(inputs)}"
        )
    arrays = {port.name: array for port, array in zip(program.inputs, inputs, strict=True)}
    given = to_carried(program.inputs, arrays)
    pairs = pair(program.plan, exported)
    half = any(var.half for step in program.plan.steps for var in step.outputs)
    wanted = {n.name for n in pairs.nodes.values()}
    wanted |= {n.name for chain in pairs.fused.values() for n in chain}
    wanted |= {n.name for n in pairs.misshapen.values()}
    truth = run_nodes(exported, list(given.values()), wanted, half=half)
    bound = HALF_BOUND if half else BOUND
    unpaired = None
    comparison = _Comparison(program, pairs, truth, bound)
    if pairs.names < _NAMED * pairs.ops:
        unpaired = (
            f"only {pairs.names} of {pairs.ops} ops bear the name of a node of PyTorch's program: "
            "the package was converted from another program, or by torch.jit.trace"
        )
    else:
        with torch.inference_mode():
            comparison.run(given)
    precision = precision_of(program, [arrays])
    if unpaired is None:
        precision = precision.with_modules(modules_of(program.plan, pairs))
    return BlameReport(
        ops=pairs.ops,
        names=pairs.names,
        positions=pairs.positions,
        bound=bound,
        outputs=comparison.outputs(arrays),
        blames=tuple(comparison.blames()),
        precision=precision,
        unpaired=unpaired,
    )


@dataclass(eq=False)
class _Suspect:
    """An op that differs from its node, and the suspects upstream that it was given."""

    blame: Blame
    upstream: frozenset[_Suspect]
    cleared: bool = False

    def clear(self) -> None:
        self.cleared = True
        for other in self.upstream:
            other.clear()


@dataclass
class _Comparison:
    """Runs the program twice: on PyTorch's values, and on suspects' own where they differ."""

    program: Program
    pairs: Pairs
    truth: Mapping[str, Tensor]
    bound: float
    forced: dict[Variable, Any] = field(default_factory=dict)
    lenient: dict[Variable, Any] = field(default_factory=dict)
    tainted: dict[Variable, frozenset[_Suspect]] = field(default_factory=dict)
    # steps without a node since the last ones with
    open: dict[Variable, tuple[Step, ...]] = field(default_factory=dict)
    suspects: list[_Suspect] = field(default_factory=list)

    def run(self, given: Mapping[str, Tensor]) -> None:
        plan = self.program.plan
        values: dict[Variable, Any] = dict(plan.constants)
        for var in plan.inputs:
            values[var] = self.program.states[var.name] if var.state else given[var.name]
        self.forced, self.lenient = values, dict(values)
        for step in plan.steps:
            self._step(step)
            for var in step.frees:
                for held in (self.forced, self.lenient, self.tainted, self.open):
                    held.pop(var, None)

    def blames(self) -> Iterable[Blame]:
        return (suspect.blame for suspect in self.suspects if not suspect.cleared)

    def outputs(self, arrays: Mapping[str, Any]) -> dict[str, float]:
        """Errors of the outputs that are paired, of the program left to itself in float32."""
        answers = self.program(arrays, Numerics.FLOAT32)
        return {
            var.name: difference(self.truth[node.name], torch.as_tensor(answers[var.name]))
            for var in self.program.plan.outputs
            if (node := self.pairs.nodes.get(var)) is not None and node.name in self.truth
        }

    def _step(self, step: Step) -> None:
        suspects = frozenset[_Suspect]().union(
            *(self.tainted.get(var, frozenset()) for var in step.inputs)
        )
        forced = execute(step, self.forced, _IN_FLOAT)
        lenient = execute(step, self.lenient, _IN_FLOAT) if suspects else forced
        between = tuple(dict.fromkeys(one for var in step.inputs for one in self.open.get(var, ())))
        for index, var in enumerate(step.outputs):
            node = self.pairs.nodes.get(var)
            if node is None or node.name not in self.truth:
                self.forced[var], self.lenient[var] = forced[index], lenient[index]
                self.tainted[var] = suspects
                self.open[var] = (*between, step)
            else:
                self._judge(step, var, (forced[index], lenient[index]), suspects, between)

    def _judge(
        self,
        step: Step,
        var: Variable,
        results: Results,
        suspects: frozenset[_Suspect],
        between: tuple[Step, ...],
    ) -> None:
        forced, lenient = results
        node, error = self._nearest(var, forced)
        truth = self.truth[node.name].to(forced.dtype)
        self.forced[var] = self.lenient[var] = truth
        self.tainted[var] = frozenset()
        agrees = difference(truth, lenient) <= self.bound
        if suspects and agrees:
            for suspect in suspects:
                suspect.clear()
        elif error > self.bound and step.op.name not in CASTS:
            found = _Suspect(self._blame(step, node, error, between), suspects)
            self.suspects.append(found)
            self.lenient[var] = lenient
            self.tainted[var] = frozenset((found,))

    def _nearest(self, var: Variable, result: Tensor) -> tuple[Node, float]:
        """The node of an op, or the one of those fused into it that the result agrees with."""
        own = self.pairs.nodes[var]
        error = difference(self.truth[own.name], result)
        if error > self.bound:
            for node in self.pairs.fused[var]:
                value = self.truth.get(node.name)
                fits = value is not None and value.shape == result.shape
                if fits and difference(value, result) <= self.bound:
                    return node, 0.0
        return own, error

    def _blame(self, step: Step, node: Node, error: float, between: tuple[Step, ...]) -> Blame:
        others = steps_between(between)
        misshapen = [one for one in between if one.name in self.pairs.misshapen]
        if misshapen:
            # not compared itself, since its shape is another; what follows shows that it differs
            others = (*(name for name in others if name != misshapen[0].name), step.name)
            step, node = misshapen[0], self.pairs.misshapen[misshapen[0].name]
        truth = self.truth[node.name]
        seen = compare(truth, truth)
        node = computing(node)
        module = Modules.of(self.program.package).module_of(step.name)
        return Blame(
            op=step.name,
            type=step.op.name,
            arguments=brief(step.constants),
            module=module_of(node) if module is None else module,
            node=node.name,
            target=str(node.target),
            node_arguments=brief({**dict(enumerate(node.args)), **node.kwargs}),
            error=error,
            low=seen.low,
            high=seen.high,
            between=others,
            skipped=skipped_before(node, set(self.pairs.nodes.values())),
        )


def difference(truth: Tensor | None, got: Tensor) -> float:
    """Largest difference over the range of `truth`; infinite if `got` alone is not finite."""
    if truth is None or truth.shape != got.shape:
        return math.inf
    if not truth.numel():
        return 0.0
    seen = compare(truth, got)
    return math.inf if seen.overflowed or seen.nans else seen.error

"""Convert, look, keep more in single precision, convert again: until a package passes its gate."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from phoneward.bundle import Artifact, KeptInFloat, KeptOp
from phoneward.export.blame.keep import Proposal, excess, propose
from phoneward.export.recipe import AUTO, Recipe
from phoneward.names import ParityStatus
from phoneward.runtime.engines.mil.mixed import float_ops
from phoneward.runtime.engines.mil.modules import Modules
from phoneward.runtime.engines.mil.naming import short
from phoneward.runtime.engines.mil.program import Program
from phoneward.runtime.parity import THRESHOLDS, Reference, judge

ROUNDS = 3
"""Most conversions after the first."""

_LOG = logging.getLogger(__name__)


def settle(
    convert: Callable[[Recipe], Artifact], recipe: Recipe, folder: Path, reference: Reference
) -> Artifact:
    """Make an artifact of a recipe with `AUTO` among what it keeps.

    `convert` makes one of a recipe without, and its verdict. What comes back is the first that
    passes, or else the last; it says of each op why it was kept.
    """
    asked = tuple(name for name in recipe.keep_fp32 if name != AUTO)
    reasons: dict[str, str] = {}
    artifact = convert(replace(recipe, keep_fp32=asked))
    for _ in range(ROUNDS):
        if artifact.parity.status is not ParityStatus.FAILED:
            break
        found = proposal_of(folder / artifact.path, artifact, reference).kept
        more = {op.name: op.reason for op in found if op.name not in reasons}
        for name, reason in more.items():
            _LOG.info("keep %s: %s", name, reason)
        if not more:
            _LOG.info("no further op is worth keeping in single precision")
            break
        reasons |= more
        _remove(folder / artifact.path)
        artifact = convert(replace(recipe, keep_fp32=(*asked, *reasons)))
    told = artifact.keep_fp32 or kept_in(folder / artifact.path, {})
    return artifact.model_copy(update={"keep_fp32": _explained(told, reasons)})


def kept_in(package: Path, names: Mapping[str, tuple[str, ...]]) -> KeptInFloat:
    """Describe what a half-precision package has in single precision; `names` as in `Lowered`.

    Ops that were kept and then absorbed by others are left out.
    """
    program = Program.load(package)
    modules = Modules.of(program.package)
    left = {
        short(bearer): step.name
        for step in program.plan.steps
        for bearer in (step.name, *(var.name for var in step.outputs))
    }
    kept = [
        KeptOp(op=op, name=name, module=modules.module_of(left[op]), reason="asked for")
        for name, ops in names.items()
        for op in ops
        if op in left
    ]
    ops, in_float = float_ops(program.plan)
    return KeptInFloat(kept=tuple(kept), float_ops=in_float, ops=ops)


def proposal_of(package: Path, artifact: Artifact, reference: Reference) -> Proposal:
    """Propose what to keep in single precision of a package, held against its gate."""
    limit = THRESHOLDS[artifact.precision].relative_error
    samples = reference.samples(artifact.stage, artifact.inputs)

    def measure(answers: Mapping[str, Any]) -> float:
        return excess(judge(artifact, reference, answers, "mil"), len(artifact.outputs), limit)

    return propose(Program.load(package), samples, measure, limit)


def _explained(told: KeptInFloat, reasons: Mapping[str, str]) -> KeptInFloat:
    kept = tuple(
        op.model_copy(update={"reason": reasons.get(op.name, op.reason)}) for op in told.kept
    )
    return told.model_copy(update={"kept": kept})


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()

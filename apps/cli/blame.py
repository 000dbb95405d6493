"""How `verify --blame` shows which ops of Core ML packages are to blame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from phoneward.apps.cli.output import print_table
from phoneward.names import ParityStatus

if TYPE_CHECKING:
    from phoneward.bundle import Artifact
    from phoneward.export.blame.bundle import ArtifactBlame
    from phoneward.export.blame.keep import Proposal
    from phoneward.export.blame.report import BlameReport

_FINDINGS = ("what", "op", "type", "module", "figures")
_BLAMES = ("op", "computes", "PyTorch", "computes", "module", "error / range", "range")


def blame_json(found: ArtifactBlame) -> dict[str, Any]:
    """Return one package's blame as the command's JSON has it; null is what is not finite."""
    artifact, comparison = found.artifact, found.comparison
    document = {
        "stage": artifact.stage,
        "precision": str(artifact.precision),
        "findings": [asdict(finding) for finding in found.precision.findings],
        "outputs": dict(found.precision.outputs),
        "ops": [asdict(op) for op in found.precision.ops],
        "pytorch": None if comparison is None else _comparison_json(comparison),
        "unavailable": found.unavailable,
        "proposal": None if found.proposal is None else _proposal_json(found.proposal),
    }
    finite: dict[str, Any] = _finite(document)
    return finite


def print_blame(found: Sequence[ArtifactBlame], checked: Sequence[Artifact]) -> None:
    """Print what half precision does to each package, and where it differs from PyTorch."""
    verdicts = {a.path: a.parity.status for a in checked}
    if not found:
        print("No Core ML packages to look into.")
    for one in found:
        name = f"{one.artifact.stage} {one.artifact.format}-{one.artifact.precision}"
        _print_precision(name, one, agrees=verdicts.get(one.artifact.path) is ParityStatus.OK)
        if one.proposal is not None:
            _print_proposal(name, one.proposal)
        if one.comparison is None:
            print(f"{name}: PyTorch's side could not be rebuilt: {one.unavailable}")
        else:
            _print_comparison(name, one.comparison)


def _print_precision(name: str, found: ArtifactBlame, *, agrees: bool) -> None:
    report = found.precision
    worst = max(report.outputs.values(), default=0.0)
    off = f"the outputs are off by up to {_figure(worst)} of their range from float32"
    if not report.findings:
        print(f"{name}: no op loses precision ({len(report.ops)} ops); {off}.")
        return
    rows = [(f.kind, f.op.name, f.op.type, f.op.module or "", f.text) for f in report.findings]
    print_table(f"{name}: first ops that lose precision", _FINDINGS, rows)
    hint = "; the artifact agrees with PyTorch all the same: hints, no failures" if agrees else ""
    print(f"{name}: {off}{hint}.")


def _print_comparison(name: str, report: BlameReport) -> None:
    if report.unpaired:
        print(f"{name}: not compared op by op: {report.unpaired}.")
        return
    if not report.blames:
        paired = f"{report.names + report.positions} of {report.ops}"
        print(f"{name}: {paired} ops are paired with PyTorch's, and all of them agree.")
        return
    rows = [
        (
            ", or ".join((b.op, *b.between)),
            f"{b.type} {b.arguments}",
            ", ".join((b.node, *b.skipped)),
            f"{b.target} {b.node_arguments}",
            b.module or "",
            _figure(b.error),
            f"{b.low:.4g} to {b.high:.4g}",
        )
        for b in report.blames
    ]
    print_table(f"{name}: ops that do not compute what PyTorch does", _BLAMES, rows)


def _print_proposal(name: str, proposal: Proposal) -> None:
    if not proposal.kept:
        print(f"{name}: no op is worth keeping in fp32.")
        return
    rows = [(op.name, op.module or "", op.reason) for op in proposal.kept]
    print_table(f"{name}: what to keep in fp32", ("op", "module", "why"), rows)
    before, after = _figure(proposal.before), _figure(proposal.after)
    print(f"{name}: largest error over what the gate allows: {before}, with these in fp32 {after}.")
    print("To export so: --keep-fp32 auto, or --keep-fp32 with each op or module")


def _proposal_json(proposal: Proposal) -> dict[str, Any]:
    kept = [op.model_dump(mode="json") for op in proposal.kept]
    return {"kept": kept, "before": proposal.before, "after": proposal.after}


def _comparison_json(report: BlameReport) -> dict[str, Any]:
    keys = ("ops", "names", "positions", "bound", "unpaired")
    return {
        **{key: getattr(report, key) for key in keys},
        "outputs": dict(report.outputs),
        "blames": [asdict(blame) for blame in report.blames],
    }


def _figure(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "infinite"


def _finite(value: Any) -> Any:
    """JSON has no infinities."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

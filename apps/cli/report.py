"""How artifacts and their parity with PyTorch are shown, for `export`, `verify` and `demo`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from phoneward.apps.cli.output import print_json, print_table
from phoneward.bundle import Artifact, Delegation, Parity
from phoneward.names import ParityStatus

_COLUMNS = (
    "stage",
    "format",
    "precision",
    "size",
    "max error / range",
    "SNR dB",
    "top-1",
    "fell back",
    "parity",
)


def artifact_json(artifact: Artifact, bundle: Path | None) -> dict[str, Any]:
    """Return an artifact as the commands' JSON has it.

    `path` and `log` are absolute, and null where no bundle was written.
    """
    record = artifact.model_dump(mode="json")
    for key in ("path", "log"):
        if record[key] is not None:
            record[key] = None if bundle is None else str(bundle.absolute() / record[key])
    return record


def show_failure(artifacts: Sequence[Artifact], error: str, *, json_output: bool) -> None:
    """Show every verdict of an export whose gate failed, and the error."""
    if json_output:
        rows = [artifact_json(artifact, None) for artifact in artifacts]
        print_json({"bundle": None, "artifacts": rows, "error": error})
    else:
        print_artifacts(artifacts)
        typer.echo(f"error: {error}", err=True)


def print_artifacts(artifacts: Sequence[Artifact]) -> None:
    """Print one row an artifact with the figures of its parity."""
    rows = []
    for artifact in artifacts:
        parity = artifact.parity
        rows.append(
            (
                artifact.stage,
                artifact.format,
                f"{artifact.precision}" + (f" {artifact.target}" if artifact.target else ""),
                f"{artifact.bytes / 1e6:.1f} MB",
                _worst(parity),
                _snr(parity),
                "" if parity.top1_agreement is None else f"{parity.top1_agreement:.0%}",
                _fallback(artifact.delegation),
                _verdict(parity),
            )
        )
    print_table("Artifacts against PyTorch", _COLUMNS, rows)
    for artifact in artifacts:
        if artifact.parity.reason and artifact.parity.status is ParityStatus.FAILED:
            print(f"{artifact.format}-{artifact.precision}: {artifact.parity.reason}")


def _verdict(parity: Parity) -> str:
    notes = [note for note in (parity.engine, "cached" if parity.cached else None) if note]
    return f"{parity.status}" + (f" ({', '.join(notes)})" if notes else "")


def _worst(parity: Parity) -> str:
    if not parity.outputs:
        return ""
    return f"{max(output.relative_error for output in parity.outputs):.1e}"


def _snr(parity: Parity) -> str:
    values = [output.snr_db for output in parity.outputs if output.snr_db is not None]
    return f"{min(values):.0f}" if values else ""


def _fallback(delegation: Delegation | None) -> str:
    if delegation is None:
        return ""
    ops = ", ".join(f"{count} {name}" for name, count in sorted(delegation.fallback.items()))
    return ops or f"none ({delegation.partitions} {delegation.delegate})"

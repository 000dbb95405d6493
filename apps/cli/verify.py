"""`phoneward verify`: is a bundle whole, unchanged, and still equal to PyTorch here?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phoneward.apps.cli.output import JsonFlag, print_json, progress_bar
from phoneward.apps.cli.report import artifact_json, print_artifacts
from phoneward.names import ParityStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phoneward.bundle import Artifact

EXAMPLE = "Example: phoneward verify lite0"


def command(
    bundle: Annotated[Path, typer.Argument(help="A folder that `export` wrote.")],
    threads: Annotated[int, typer.Option(min=1, help="Threads an engine may use.")] = 2,
    json_output: JsonFlag = False,
) -> int:
    """Check a bundle's checksums, then run every artifact against the stored PyTorch answers.

    Needs no torch: the answers are in the bundle. Exit code 0: all that could be executed here
    agrees, which the last line counts; 1: an artifact does not; 2: the folder is no bundle, or a
    file of it has changed.
    """
    from phoneward.bundle import Bundle
    from phoneward.quiet import noise_to
    from phoneward.runtime.parity import check_bundle

    opened = Bundle.open(bundle)
    with progress_bar(quiet=json_output) as progress, noise_to(Path(os.devnull)):
        checked = [
            artifact.model_copy(update={"parity": parity})
            for artifact, parity in check_bundle(opened, threads=threads, progress=progress)
        ]
    executed = [a for a in checked if a.parity.status is not ParityStatus.NOT_EXECUTED]
    if json_output:
        rows = [artifact_json(artifact, bundle) for artifact in checked]
        print_json({"bundle": str(bundle.absolute()), "artifacts": rows, "executed": len(executed)})
    else:
        print_artifacts(checked)
        files = len(opened.manifest.checksums())
        print(f"{files} files have the checksums that bundle.json states.")
        _conclude(executed, len(checked))
    return 1 if _failures(executed) else 0


def _failures(executed: Sequence[Artifact]) -> int:
    return sum(artifact.parity.status is ParityStatus.FAILED for artifact in executed)


def _conclude(executed: Sequence[Artifact], total: int) -> None:
    count = f"{len(executed)} of {total} artifacts executed here"
    if failed := _failures(executed):
        typer.echo(f"error: {count}: {failed} disagree with PyTorch", err=True)
    elif not executed:
        print(f"{count}: nothing was proved.")
    else:
        print(f"{count}: all of these agree with PyTorch.")

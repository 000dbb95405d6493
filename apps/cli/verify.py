"""`phoneward verify`: is a bundle whole, unchanged, and still equal to PyTorch here?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phoneward.apps.cli.artifacts import (
    artifact_json,
    clips_json,
    print_artifacts,
    print_clips,
    print_kept,
)
from phoneward.apps.cli.blame import blame_json, print_blame
from phoneward.apps.cli.output import JsonFlag, print_json, progress_bar
from phoneward.errors import InvalidSpec
from phoneward.names import ParityStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from phoneward.bundle import Artifact, Bundle, ClipParity
    from phoneward.export.blame.bundle import ArtifactBlame

EXAMPLE = "Example: phoneward verify lite0"


def command(
    bundle: Annotated[Path, typer.Argument(help="A folder that `export` wrote.")],
    threads: Annotated[int, typer.Option(min=1, help="Threads an engine may use.")] = 2,
    blame: Annotated[
        bool,
        typer.Option(
            "--blame",
            help="Name the ops of Core ML packages that lose precision or differ from PyTorch; "
            "needs phoneward\\[export].",
        ),
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(help="With --blame: the weights file, where the bundle's came from a file."),
    ] = None,
    half_sums: Annotated[
        bool,
        typer.Option(
            "--half-sums",
            help="With --blame: let half-precision ops add up in half precision too, one term "
            "after the other: the worst case of a compute unit.",
        ),
    ] = False,
    json_output: JsonFlag = False,
) -> int:
    """Check a bundle's checksums, then run every artifact against the stored PyTorch answers.

    Artifacts of a model that tracks are also played the bundle's clip. Needs no torch: the
    answers are in the bundle. Exit code 0: all that could be executed here agrees, which the last
    line counts; 1: an artifact or a clip does not; 2: the folder is no bundle, or a file of it
    has changed.
    """
    from phoneward.bundle import Bundle
    from phoneward.quiet import noise_to
    from phoneward.runtime.clip import check_clips
    from phoneward.runtime.parity import check_bundle

    if half_sums and not blame:
        raise InvalidSpec("--half-sums is for --blame: the gates add up in float32")
    _check_weights(weights, blame=blame)
    opened = Bundle.open(bundle)
    with progress_bar(quiet=json_output) as progress, noise_to(Path(os.devnull)):
        checked = [
            artifact.model_copy(update={"parity": parity})
            for artifact, parity in check_bundle(opened, threads=threads, progress=progress)
        ]
        clips = list(check_clips(opened, threads=threads, progress=progress))
        found = list(_blamed(opened, weights, threads, half_sums, progress)) if blame else []
    executed = [a for a in checked if a.parity.status is not ParityStatus.NOT_EXECUTED]
    if json_output:
        rows = [artifact_json(artifact, bundle) for artifact in checked]
        judged = {"artifacts": rows, "clips": clips_json(clips), "executed": len(executed)}
        blames = {"blame": [blame_json(one) for one in found]} if blame else {}
        print_json({"bundle": str(bundle.absolute()), **judged, **blames})
    else:
        print_artifacts(checked)
        print_kept(checked)
        print_clips(clips)
        if blame:
            print_blame(found, checked)
        files = len(opened.manifest.checksums())
        print(f"{files} files have the checksums that bundle.json states.")
        _conclude(executed, len(checked), _failed_clips(clips))
    return 1 if _failures(executed) or _failed_clips(clips) else 0


def _check_weights(weights: Path | None, *, blame: bool) -> None:
    """Refuse at once what would be found out after minutes, or never."""
    if weights is None:
        return
    if not blame:
        raise InvalidSpec("--weights is for --blame: without it only stored answers are compared")
    if not weights.is_file():
        raise InvalidSpec(f"{weights}: no such weights file")


def _blamed(
    bundle: Bundle,
    weights: Path | None,
    threads: int,
    half_sums: bool,
    progress: Callable[[str, int, int], None],
) -> Iterator[ArtifactBlame]:
    # verify itself needs no torch, and must not import it
    from phoneward.runtime.engines import ENGINES

    ENGINES.require("mil")
    from phoneward.export.blame.bundle import blame_bundle
    from phoneward.runtime.engines.mil.numerics import Numerics

    numerics = Numerics.HALF_SUMS if half_sums else Numerics.DECLARED
    yield from blame_bundle(bundle, weights, threads, numerics, progress)


def _failures(executed: Sequence[Artifact]) -> int:
    return sum(artifact.parity.status is ParityStatus.FAILED for artifact in executed)


def _failed_clips(clips: Sequence[ClipParity]) -> int:
    return sum(clip.status is ParityStatus.FAILED for clip in clips)


def _conclude(executed: Sequence[Artifact], total: int, failed_clips: int) -> None:
    count = f"{len(executed)} of {total} artifacts executed here"
    if failed := _failures(executed):
        typer.echo(f"error: {count}: {failed} disagree with PyTorch", err=True)
    elif failed_clips:
        typer.echo(f"error: {count}: {failed_clips} of their clips disagree with PyTorch", err=True)
    elif not executed:
        print(f"{count}: nothing was proved.")
    else:
        print(f"{count}: all of these agree with PyTorch.")

"""`phoneward export`: a model becomes proven artifacts for named devices."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phoneward.apps.cli.artifacts import (
    artifact_json,
    clips_json,
    price_line,
    print_artifacts,
    print_clips,
    print_kept,
    show_failure,
)
from phoneward.apps.cli.lint import print_counts
from phoneward.apps.cli.output import JsonFlag, print_json, print_table, progress_bar
from phoneward.names import Precision
from phoneward.quiet import noise_to

if TYPE_CHECKING:
    from phoneward.bundle import Bundle
    from phoneward.export.request import ExportRequest

EXAMPLE = (
    "Example: phoneward export efficientnet_lite0 --device iphone-15-pro --device pixel-8 -o lite0"
)


def _models(incomplete: str) -> list[str]:
    from phoneward.export.models import cards

    return [name for name in cards() if name.startswith(incomplete)]


def _devices(incomplete: str) -> list[str]:
    from phoneward.profiles.device import device_names

    return [name for name in device_names() if name.startswith(incomplete)]


def _formats(incomplete: str) -> list[str]:
    from phoneward.export.backends import BACKENDS

    return [name for name in BACKENDS if name.startswith(incomplete)]


def command(
    model: Annotated[
        str, typer.Argument(help="A name from `phoneward models`.", autocompletion=_models)
    ],
    device: Annotated[
        list[str] | None,
        typer.Option(help="A name from `phoneward devices`; repeatable.", autocompletion=_devices),
    ] = None,
    format_name: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="Only this format (coreml, executorch, tflite, onnx); repeatable.",
            autocompletion=_formats,
        ),
    ] = None,
    precision: Annotated[
        list[Precision] | None, typer.Option(help="Only this precision; repeatable.")
    ] = None,
    keep_fp32: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep this in fp32 in a Core ML fp16 package: an op by name, a module by path, or "
            "auto: what it does not agree with PyTorch without; repeatable.",
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="pretrained, random, or a .safetensors or .pt file.")
    ] = "pretrained",
    memory_slots: Annotated[
        int | None,
        typer.Option(
            help="Frames in the memory bank of a model that tracks, 1 to 16 [default: 7]. At most "
            "6 are recent ones: more than 7 slots serve several prompted frames.",
        ),
    ] = None,
    pooled_memory: Annotated[
        bool, typer.Option("--pooled-memory", help="Average the memory bank's keys 2 x 2.")
    ] = False,
    object_pointers: Annotated[
        bool,
        typer.Option(
            "--object-pointers/--no-object-pointers",
            help="Let frames read the object pointers of earlier ones.",
        ),
    ] = True,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The bundle's folder [default: MODEL].")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check names, weights, packages and output; print the plan."
        ),
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Convert anew even if nothing has changed.")
    ] = False,
    json_output: JsonFlag = False,
) -> int:
    """Export a model, prove every artifact against PyTorch, and write a bundle.

    Artifacts of a model that tracks must also follow a clip together as PyTorch does. Exit code 0:
    all artifacts that this machine can execute agree with PyTorch. 1: one does not, and no bundle
    is written. 2: bad input, or interrupted.
    """
    from phoneward.export.models.family import Knobs
    from phoneward.export.pipeline import GateFailed, Options, export_bundle
    from phoneward.export.request import keep_in_float, make_request

    knobs = Knobs(memory_slots, pooled_memory, object_pointers)
    request = make_request(model, weights, device or (), format_name or (), precision or (), knobs)
    request = keep_in_float(request, keep_fp32 or ())
    destination = output or Path(model)
    options = Options(force=force, use_cache=not no_cache)
    if dry_run:
        _plan(request, destination, options.force, json_output=json_output)
        return 0
    try:
        with progress_bar(quiet=json_output) as progress:
            bundle = export_bundle(request, destination, options, progress)
    except GateFailed as failure:
        show_failure(failure.artifacts, str(failure), json_output=json_output, clips=failure.clips)
        return failure.exit_code
    _show(bundle, destination, json_output=json_output)
    if not json_output:
        print_counts(bundle, use_cache=options.use_cache)
        _show_next(bundle, destination)
    return 0


def _show(bundle: Bundle, destination: Path, *, json_output: bool) -> None:
    manifest = bundle.manifest
    if json_output:
        document = {
            "bundle": str(destination.absolute()),
            "artifacts": [artifact_json(artifact, destination) for artifact in manifest.artifacts],
            "clips": clips_json(manifest.clips),
            "price": manifest.price.model_dump(mode="json") if manifest.price else None,
            "error": None,
        }
        print_json(document)
        return
    print_artifacts(manifest.artifacts)
    print_kept(manifest.artifacts)
    print_clips(manifest.clips)
    if manifest.price is not None:
        print(f"Knobs: {price_line(manifest.price)}")
    print(f"Bundle written: {destination}")


def _show_next(bundle: Bundle, destination: Path) -> None:
    use = "track {} VIDEO --point 0:X,Y" if bundle.manifest.clips else "run {} IMAGE"
    print(f"Next: phoneward {use.format(destination)}    phoneward verify {destination}")


def _plan(request: ExportRequest, destination: Path, force: bool, *, json_output: bool) -> None:
    from phoneward.export.models import find
    from phoneward.export.weights import load, resolve
    from phoneward.staging import check_replaceable

    check_replaceable(destination, force=force)
    _check_writable(destination)
    weights = resolve(request.weights, request.model)
    record = weights.record
    with noise_to(Path(os.devnull)):
        if (state := load(weights)) is not None:
            find(request.model.name)[1].build(request.model, state)
    rows = [
        {"stage": stage.name, "format": r.format, "precision": str(r.precision), "target": r.target}
        for r in request.recipes
        for stage in request.model.stages
    ]
    if json_output:
        knobs = asdict(request.model.knobs)
        plan = {
            "model": request.model.name,
            "knobs": knobs,
            "weights": record.model_dump(),
            "artifacts": rows,
        }
        print_json({**plan, "bundle": str(destination.absolute()), "dry_run": True})
        return
    table = [(row["stage"], row["format"], row["precision"], row["target"] or "") for row in rows]
    print_table(
        f"{request.model.name} would become", ("stage", "format", "precision", "target"), table
    )
    print(f"Weights: {record.kind}, {record.source}")
    print(f"Bundle: {destination} (nothing was written)")


def _check_writable(destination: Path) -> None:
    from phoneward.errors import OutputError

    parents = destination.absolute().parents
    nearest = next(parent for parent in parents if parent.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise OutputError(f"cannot write {destination}: {nearest} is no folder to write to")

"""`phoneward export`: a model becomes proven artifacts for named devices."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from phoneward.apps.cli.artifacts import (
    artifact_json,
    clips_json,
    price_line,
    print_artifacts,
    print_clips,
    print_kept,
    show_failure,
)
from phoneward.apps.cli.export_options import (
    AnyVariantOption,
    BatchOption,
    DeviceOption,
    DryRunOption,
    ForceOption,
    FormatOption,
    KeepOption,
    ModelArgument,
    NoCacheOption,
    OutputOption,
    PointersOption,
    PooledOption,
    PrecisionOption,
    SlotsOption,
    TargetOption,
    WeightsOption,
)
from phoneward.apps.cli.lint import print_counts
from phoneward.apps.cli.output import JsonFlag, print_json, print_table, progress_bar
from phoneward.apps.cli.targets import decision_json, print_decision, show_infeasible
from phoneward.errors import InvalidSpec
from phoneward.quiet import noise_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phoneward.bundle import Bundle
    from phoneward.export.request import ExportRequest
    from phoneward.export.target.search import Decision, Wanted

EXAMPLE = (
    "Example: phoneward export efficientnet_lite0 --device iphone-15-pro --device pixel-8 -o lite0"
)


def command(
    model: ModelArgument,
    device: DeviceOption = None,
    format_name: FormatOption = None,
    precision: PrecisionOption = None,
    keep_fp32: KeepOption = None,
    weights: WeightsOption = "pretrained",
    batch: BatchOption = 1,
    memory_slots: SlotsOption = None,
    pooled_memory: PooledOption = None,
    object_pointers: PointersOption = None,
    target_ms: TargetOption = None,
    any_variant: AnyVariantOption = False,
    output: OutputOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    no_cache: NoCacheOption = False,
    json_output: JsonFlag = False,
) -> int:
    """Export a model, prove every artifact against PyTorch, and write a bundle.

    Artifacts of a model that tracks must also follow a clip together as PyTorch does. Exit code 0:
    all artifacts that this machine can execute agree with PyTorch. 1: one does not, and no bundle
    is written. 2: bad input, or interrupted. 3: nothing that is allowed meets `--target-ms`.
    """
    from phoneward.export.pipeline import GateFailed, Options, export_bundle
    from phoneward.export.request import keep_in_float, make_request
    from phoneward.export.target.order import Fixed
    from phoneward.export.target.search import Infeasible, Wanted

    fixed = Fixed(memory_slots, pooled_memory, object_pointers)
    named = tuple(format_name or ()), tuple(precision or ())
    decision = None
    if target_ms is not None:
        if batch != 1:
            raise InvalidSpec("a latency target is for one image: leave --batch out")
        sole = _sole_device(device or ())
        try:
            decision = _choose(
                Wanted(model, sole, target_ms, weights, *named, fixed, any_variant),
                json_output=json_output,
            )
        except Infeasible as missed:
            show_infeasible(missed, json_output=json_output)
            return missed.exit_code
        request = decision.request()
    elif any_variant:
        raise InvalidSpec("--any-variant chooses for a latency target: give --target-ms")
    else:
        request = make_request(model, weights, device or (), *named, fixed.knobs(), batch)
    request = keep_in_float(request, keep_fp32 or ())
    destination = output or Path(request.model.name)
    options = Options(force=force, use_cache=not no_cache)
    if dry_run:
        _plan(request, destination, options.force, decision, json_output=json_output)
        return 0
    try:
        with progress_bar(quiet=json_output) as progress:
            bundle = export_bundle(request, destination, options, progress)
    except GateFailed as failure:
        show_failure(failure.artifacts, str(failure), json_output=json_output, clips=failure.clips)
        return failure.exit_code
    _show(bundle, destination, decision, json_output=json_output)
    if not json_output:
        print_counts(bundle, use_cache=options.use_cache)
        _show_next(bundle, destination)
    return 0


def _sole_device(devices: Sequence[str]) -> str:
    if len(devices) != 1:
        raise InvalidSpec("a latency target is one device's: give --device once with --target-ms")
    return devices[0]


def _choose(wanted: Wanted, *, json_output: bool) -> Decision:
    from phoneward.export.target.search import choose
    from phoneward.profiles.predict.predictor import predict_stages

    with progress_bar(quiet=json_output) as progress:
        progress(f"what of {wanted.model} meets {wanted.target_ms:g} ms", 0, 1)
        decision = choose(wanted, predict_stages)
    if not json_output:
        print_decision(decision)
    return decision


def _show(
    bundle: Bundle, destination: Path, decision: Decision | None, *, json_output: bool
) -> None:
    manifest = bundle.manifest
    if json_output:
        document = {
            "bundle": str(destination.absolute()),
            "artifacts": [artifact_json(artifact, destination) for artifact in manifest.artifacts],
            "clips": clips_json(manifest.clips),
            "price": manifest.price.model_dump(mode="json") if manifest.price else None,
            "target": decision_json(decision) if decision is not None else None,
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


def _plan(
    request: ExportRequest,
    destination: Path,
    force: bool,
    decision: Decision | None,
    *,
    json_output: bool,
) -> None:
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
            "target": decision_json(decision) if decision is not None else None,
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

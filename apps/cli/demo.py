"""`phoneward demo`: the main jobs from end to end, on one real photograph and one clip."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phoneward.apps.cli.artifacts import artifact_json, print_artifacts, show_failure
from phoneward.apps.cli.output import JsonFlag, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from phoneward.apps.cli.demo_tracking import Tracked
    from phoneward.bundle import Bundle
    from phoneward.export.request import ExportRequest

EXAMPLE = "Example: phoneward demo -o demo-output"

_MODEL = "efficientnet_lite0"
_DEVICES = ("iphone-15-pro", "pixel-8")
_DEFAULT = Path("demo-output")


def command(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The bundle's folder; the default is replaced.")
    ] = _DEFAULT,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    json_output: JsonFlag = False,
) -> int:
    """Export EfficientNet-Lite0 for two phones, check it, classify a photograph with each file.

    Then export efficienttam-nano, which ships with Phoneward, in every format, and follow an object
    through a clip on every engine. Bundle and videos are beside the first bundle, in folders whose
    names end in `-tracking` and `-tracks`.

    Exit code 0: all artifacts that this machine can execute agree with PyTorch. 1: one does not,
    and its bundle is not written. 2: bad input, or interrupted.
    """
    from phoneward.apps.cli.demo_tracking import tracking_request
    from phoneward.export.request import make_request

    classify, track = make_request(_MODEL, "pretrained", _DEVICES), tracking_request()
    force = force or output == _DEFAULT
    return demonstrate(classify, output, force=force, json_output=json_output, tracking=track)


def demonstrate(
    request: ExportRequest,
    output: Path,
    *,
    force: bool,
    json_output: bool,
    tracking: ExportRequest | None = None,
) -> int:
    """Export a classifier, show its artifacts and what each says of a photograph.

    With `tracking`, the request of a tracker, also what each of its formats does with a clip.
    Returns the exit code. Raises what `export_bundle` raises, but for a failed gate.
    """
    from phoneward.apps.cli.demo_tracking import check_places, show, track_everywhere
    from phoneward.export.photographs import photographs
    from phoneward.export.pipeline import GateFailed, Options, export_bundle
    from phoneward.quiet import noise_to

    beside, tracks = (output.with_name(f"{output.name}-{part}") for part in ("tracking", "tracks"))
    tracker: Bundle | None = None
    tracked: tuple[Tracked, ...] = ()
    if tracking is not None:
        check_places(beside, tracks, force=force)
    try:
        with progress_bar(quiet=json_output) as progress:
            bundle = export_bundle(request, output, Options(force=force), progress)
            if tracking is not None:
                tracker = export_bundle(tracking, beside, Options(force=force), progress)
                tracked = track_everywhere(tracker, tracks, progress)
    except GateFailed as failure:
        show_failure(failure.artifacts, str(failure), json_output=json_output)
        return failure.exit_code
    photo = next(path for path in photographs() if path.stem == "espresso")
    with noise_to(Path(os.devnull)):
        answers = _classify(bundle, photo)
    if json_output:
        rows = [artifact_json(artifact, output) for artifact in bundle.manifest.artifacts]
        document = {"bundle": str(output.absolute()), "artifacts": rows, "error": None}
        followed = [row.as_json() for row in tracked]
        print_json({**document, "answers": answers, "tracked": followed})
    else:
        _print(bundle, photo, answers)
        if tracker is not None:
            show(tracker, tracked)
    return 0


def _print(bundle: Bundle, photo: Path, answers: list[dict[str, Any]]) -> None:
    manifest = bundle.manifest
    weights = f"{manifest.weights.kind} weights ({manifest.weights.source})"
    phones = f", for {' and '.join(manifest.devices)}" if manifest.devices else ""
    print(f"{manifest.model}, {weights}{phones}")
    print_artifacts(manifest.artifacts)
    rows = [
        (a["path"], a["engine"], a["label"], f"{a['score']:.1%}")
        if a["engine"]
        else (a["path"], "not executed here", "", "")
        for a in answers
    ]
    title = f"{photo.name} according to each artifact"
    print_table(title, ("artifact", "engine", "label", "score"), rows)
    print(f"Photograph: {photo}")
    print(f"Bundle: {bundle.path.absolute()}  (bundle.json says what each file is)")
    print(f"Next: phoneward run {bundle.path} YOUR_PHOTO.jpg    phoneward verify {bundle.path}")


def _classify(bundle: Bundle, photo: Path) -> list[dict[str, Any]]:
    """One answer an artifact: its path, and engine, label and score (0 to 1) or three nulls."""
    from phoneward.runtime.classifier import Classifier
    from phoneward.runtime.engines import engines_for

    answers: list[dict[str, Any]] = []
    for artifact in bundle.manifest.artifacts:
        answer = {"path": str(bundle.file(artifact).absolute())}
        if not engines_for(artifact.format):
            answers.append({**answer, "engine": None, "label": None, "score": None})
            continue
        with Classifier.open(
            bundle, format_name=artifact.format, precision=artifact.precision
        ) as classifier:
            best = classifier.classify(photo, top=1)[0]
            found = {"engine": classifier.engine, "label": best.label, "score": best.score}
        answers.append({**answer, **found})
    return answers

"""`phoneward demo`: the main job from end to end on one real photograph."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phoneward.apps.cli.output import JsonFlag, print_json, print_table, progress_bar
from phoneward.apps.cli.report import artifact_json, print_artifacts

if TYPE_CHECKING:
    from phoneward.bundle import Bundle

EXAMPLE = "Example: phoneward demo -o demo-output"

_MODEL = "efficientnet_lite0"
_DEVICES = ("iphone-15-pro", "pixel-8")


def command(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The bundle's folder; replaced.")
    ] = Path("demo-output"),
    json_output: JsonFlag = False,
) -> None:
    """Export EfficientNet-Lite0 for two phones, check it, classify a photograph with each file."""
    from phoneward.export.pipeline import Options, export_bundle
    from phoneward.export.reference import photographs
    from phoneward.export.request import make_request
    from phoneward.quiet import noise_to

    request = make_request(_MODEL, "pretrained", _DEVICES)
    with progress_bar(quiet=json_output) as progress:
        bundle = export_bundle(request, output, Options(force=True), progress)
    photo = next(path for path in photographs() if path.stem == "espresso")
    with noise_to(Path(os.devnull)):
        answers = _classify(bundle, photo)
    if json_output:
        rows = [artifact_json(artifact, output) for artifact in bundle.manifest.artifacts]
        print_json({"bundle": str(output.absolute()), "artifacts": rows, "answers": answers})
        return
    print(f"{_MODEL}, ImageNet weights, for {' and '.join(_DEVICES)}")
    print_artifacts(bundle.manifest.artifacts)
    print_table(
        f"{photo.name} according to each artifact",
        ("artifact", "engine", "label", "score"),
        [(a["path"], a["engine"], a["label"], a["score"]) for a in answers],
    )
    print(f"Photograph: {photo}")
    print(f"Bundle: {output.absolute()}  (bundle.json says what each file is)")
    print(f"Next: phoneward run {output} YOUR_PHOTO.jpg    phoneward verify {output}")


def _classify(bundle: Bundle, photo: Path) -> list[dict[str, Any]]:
    from phoneward.runtime.classifier import Classifier
    from phoneward.runtime.engines import engines_for

    answers: list[dict[str, Any]] = []
    for artifact in bundle.manifest.artifacts:
        where = str(bundle.file(artifact).absolute())
        if not engines_for(artifact.format):
            answers.append({"path": where, "engine": "not executed here", "label": "", "score": ""})
            continue
        with Classifier.open(
            bundle, format_name=artifact.format, precision=artifact.precision
        ) as classifier:
            best = classifier.classify(photo, top=1)[0]
            answers.append(
                {
                    "path": where,
                    "engine": classifier.engine,
                    "label": best.label,
                    "score": f"{best.score:.1%}",
                }
            )
    return answers

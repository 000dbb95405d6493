"""`phoneward run`: images to labels with an artifact of a bundle."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from phoneward.apps.cli.options import EngineOption
from phoneward.apps.cli.output import JsonFlag, print_json, print_table, progress_bar
from phoneward.names import Precision

EXAMPLE = "Example: phoneward run lite0 cat.jpg --engine litert"


def command(
    bundle: Annotated[Path, typer.Argument(help="A folder that `export` wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    engine: EngineOption = None,
    format_name: Annotated[
        str | None, typer.Option("--format", help="Use the artifact of this format.")
    ] = None,
    precision: Annotated[Precision | None, typer.Option(help="... and of this precision.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads the engine may use.")] = 2,
    json_output: JsonFlag = False,
) -> None:
    """Classify images with the artifact whose engine loads quickest here, or the one asked for."""
    from phoneward.bundle import Bundle
    from phoneward.quiet import noise_to
    from phoneward.runtime.classifier import Classifier

    opened = Bundle.open(bundle)
    with (
        progress_bar(quiet=json_output or not sys.stderr.isatty()) as progress,
        noise_to(Path(os.devnull)),
        Classifier.open(
            opened, engine=engine, format_name=format_name, precision=precision, threads=threads
        ) as classifier,
    ):
        answers = []
        for number, path in enumerate(images):
            progress(path.name, number, len(images))
            answers.append((path, classifier.classify(path, top=5)))
        used = classifier.engine
    if json_output:
        print_json(
            [
                {
                    "image": str(path),
                    "engine": used,
                    "top5": [
                        {"index": one.index, "label": one.label, "score": one.score} for one in top
                    ],
                }
                for path, top in answers
            ]
        )
        return
    rows = [
        (path if rank == 0 else "", one.label, f"{one.score:.1%}")
        for path, top in answers
        for rank, one in enumerate(top)
    ]
    print_table(f"Labels ({used})", ("image", "label", "score"), rows)

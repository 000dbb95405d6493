"""`phoneward run`: images to labels with the artifacts of a bundle."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phoneward.apps.cli.options import (
    EngineOption,
    FormatOption,
    PrecisionOption,
    ThreadsOption,
)
from phoneward.apps.cli.output import JsonFlag, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from phoneward.runtime.classifier import Answer

EXAMPLE = "Example: phoneward run lite0 cat.jpg --engine litert"

_MOST_LABELS = 5
# with more images than this a table shows the best label of each
_FEW_IMAGES = 20


def command(
    bundle: Annotated[Path, typer.Argument(help="A folder that `export` wrote.")],
    images: Annotated[
        list[Path], typer.Argument(help="Image files, or folders: all images in them.")
    ],
    engine: EngineOption = None,
    format_name: FormatOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = 2,
    exit_entropy: Annotated[
        float | None,
        typer.Option(
            help="Images leave a model with an early exit there if their answer's entropy is below "
            "this, in nats: 0 for none. Without it, as the bundle says."
        ),
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Classify images with the artifacts whose engine loads quickest here, or those asked for."""
    from phoneward.bundle import Bundle
    from phoneward.quiet import noise_to
    from phoneward.runtime.classifier import Classifier

    opened = Bundle.open(bundle)
    paths = _files(images)
    with (
        progress_bar(quiet=json_output or not sys.stderr.isatty()) as progress,
        noise_to(Path(os.devnull)),
        Classifier.open(
            opened,
            engine=engine,
            format_name=format_name,
            precision=precision,
            threads=threads,
            exit_entropy=exit_entropy,
        ) as classifier,
    ):
        answers = classifier.classify_many(paths, _MOST_LABELS, progress)
        used = classifier.engine
    if json_output:
        pairs = zip(paths, answers, strict=True)
        print_json([_record(path, str(used), answer) for path, answer in pairs])
        return
    _print(f"Labels ({used})", paths, answers)


def _files(arguments: Iterable[Path]) -> list[Path]:
    from phoneward.runtime.images import images_in

    return [
        path
        for argument in arguments
        for path in (images_in(argument) if argument.is_dir() else (argument,))
    ]


def _record(path: Path, engine: str, answer: Answer) -> dict[str, Any]:
    return {
        "image": str(path),
        "engine": engine,
        "stage": answer.stage,
        "exit_taken": answer.exited,
        "top5": [{"index": one.index, "label": one.label, "score": one.score} for one in answer],
    }


def _print(title: str, paths: Sequence[Path], answers: Sequence[Answer]) -> None:
    shown = _MOST_LABELS if len(paths) <= _FEW_IMAGES else 1
    has_exit = any(answer.exited is not None for answer in answers)
    columns = ["image", *(["stage"] if has_exit else []), "label", "score"]
    rows: list[tuple[object, ...]] = []
    for path, answer in zip(paths, answers, strict=True):
        for rank, one in enumerate(answer[:shown]):
            first = (path, _left_at(answer)) if rank == 0 else ("", "")
            rows.append((*first[: 1 + has_exit], one.label, f"{one.score:.1%}"))
    print_table(title, columns, rows)
    if has_exit:
        taken = sum(answer.exited is True for answer in answers)
        share = 100 * taken / len(answers)
        print(f"exit taken by {taken} of {len(answers)} images ({share:.1f} %)")


def _left_at(answer: Answer) -> str:
    return f"{answer.stage} (exit taken)" if answer.exited else answer.stage

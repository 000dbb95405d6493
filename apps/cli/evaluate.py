"""`phoneward evaluate`: how well a tracker segments, on annotated sequences."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from phoneward.apps.cli.options import (
    EngineOption,
    FormatOption,
    PrecisionOption,
    ThreadsOption,
)
from phoneward.apps.cli.output import JsonFlag, print_json, progress_bar
from phoneward.runtime.evaluation.prompting import PromptKind

EXAMPLE = "Example: phoneward evaluate tam --data DAVIS --set val --baseline copy -o scores"


def command(
    bundle: Annotated[Path, typer.Argument(help="A folder that `export` wrote, of a tracker.")],
    data: Annotated[
        str,
        typer.Option(
            help="A folder laid out as DAVIS: JPEGImages/[480p/] and Annotations/[480p/]; or "
            "held-out[:N], the first N (100) generated clips that no training sees.",
            metavar="DATA",
        ),
    ],
    subset: Annotated[
        str | None,
        typer.Option("--set", help="Only the sequences of ImageSets/**/SET.txt.", metavar="SET"),
    ] = None,
    prompt: Annotated[
        PromptKind, typer.Option(help="What the tracker is told of an object, once.")
    ] = PromptKind.MASK,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="copy: the first mask, unchanged. flow: moved by optical flow. template: moved to "
            "where its box is seen again. In the same table; repeatable.",
            metavar="BASELINE",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many sequences.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for evaluation.json and sheet.png.", metavar="DIR"
        ),
    ] = None,
    masks: Annotated[
        bool, typer.Option("--masks", help="Also write the masks, as DAVIS wants them.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what an earlier evaluation wrote there.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="A row for each sequence, also of more than 30.")
    ] = False,
    engine: EngineOption = None,
    format_name: FormatOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = 2,
    json_output: JsonFlag = False,
) -> None:
    """Judge a tracker's masks by J (region), F (contour) and their mean, as DAVIS defines them.

    Each object is prompted where it first appears, and judged on every annotated frame after that
    but the sequence's last. Means are over objects, as in DAVIS 2017.
    """
    from phoneward.apps.cli.annotated import open_annotated
    from phoneward.apps.cli.evaluation import Job, tell
    from phoneward.bundle import Bundle
    from phoneward.errors import OutputError
    from phoneward.runtime.artifacts import Wanted
    from phoneward.runtime.evaluation.folder import EvaluationFolder

    if masks and output is None:
        raise OutputError("--masks needs -o DIR, where to write them")
    folder = EvaluationFolder(output, masks=masks, force=force) if output is not None else None
    job = Job(
        bundle=Bundle.open(bundle),
        wanted=Wanted(engine, format_name, precision),
        threads=threads,
        prompt=prompt,
        baselines=tuple(dict.fromkeys(baseline or ())),
        folder=folder,
    )
    annotated = open_annotated(data, subset, limit)
    with progress_bar(quiet=json_output or not sys.stderr.isatty()) as progress:
        result = job.run(annotated, progress)
    record = job.record(result, data=data, subset=subset)
    if folder is not None:
        folder.close(record)
    if json_output:
        print_json(record.model_dump(mode="json"))
    else:
        tell(record, output, verbose=verbose)

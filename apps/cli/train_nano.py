"""`phoneward train efficienttam-nano`: the small track-anything model that ships with Phoneward."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from phoneward.apps.cli.output import JsonFlag, print_json, progress_bar

EXAMPLE = "Example: phoneward train efficienttam-nano -o nano"


def command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the training.")],
    seed: Annotated[int, typer.Option(min=0, help="Of all that is left to chance.")] = 0,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder of your own photographs, and of cut-outs with transparency; repeatable.",
            metavar="DIR",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Begin with these weights instead of ImageNet's trunk and chance."),
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.0, help="Of the curriculum's steps: 0.01 is a quick try.")
    ] = 1.0,
    device: Annotated[str, typer.Option(help="Where PyTorch computes: cpu, or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads for PyTorch on a CPU.")] = 2,
    json_output: JsonFlag = False,
) -> None:
    """Train a video segmentation model of 2.5 million parameters on clips that are made for it.

    What was interrupted goes on: the same command resumes. The weights are a file that
    `export efficienttam-nano --weights FILE` takes.
    """
    import torch

    from phoneward.export.train.tam.curve import draw, require
    from phoneward.export.train.tam.plan import CURRICULUM, shortened
    from phoneward.export.train.tam.run import Training, run

    require()  # not after hours
    torch.set_num_threads(threads)
    curriculum = CURRICULUM if share == 1 else shortened(CURRICULUM, share)
    training = Training(curriculum, output, seed, tuple(images or ()), weights, device)
    with progress_bar(quiet=json_output or not sys.stderr.isatty()) as progress:
        file = run(training, progress)
    curve = draw(training)
    if json_output:
        print_json({"weights": str(file.absolute()), "curve": str(curve.absolute())})
        return
    print(f"Weights: {file}  ({file.stat().st_size / 1e6:.1f} MB)")
    print(f"Learning curve: {curve}")
    print(f"Next: phoneward export efficienttam-nano --weights {file} -o tam")

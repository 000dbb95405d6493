"""The options of `profile`, by their order in its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phoneward.names import Precision

FRAMES = 16
"""Frames that are tracked end to end where nobody says how many."""

BundleArgument = Annotated[Path, typer.Argument(help="A folder that `export` wrote.")]
PlaceOption = Annotated[
    str,
    typer.Option(
        "--on",
        help="host, ssh://USER@BOARD, adb[:SERIAL], qemu:CPU or ios.",
        metavar="WHERE",
    ),
]
FormatOption = Annotated[
    str | None, typer.Option("--format", help="Only artifacts of this format.")
]
PrecisionOption = Annotated[Precision | None, typer.Option(help="Only of this precision.")]
StageOption = Annotated[
    list[str] | None, typer.Option(help="Only this stage; repeatable.", metavar="NAME")
]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads for each engine.")]
CoresOption = Annotated[
    str | None, typer.Option(help="Processors to bind to, e.g. 2,3 or 4-7.", metavar="LIST")
]
RunsOption = Annotated[int, typer.Option(min=1, help="Timed inferences of each artifact.")]
ColdStartsOption = Annotated[
    int, typer.Option(min=0, help="Fresh processes for the time to load; 0 for none.")
]
SustainedOption = Annotated[
    float,
    typer.Option(min=0, help="Then infer without a pause, for the drift.", metavar="SECONDS"),
]
OpTimesOption = Annotated[
    bool, typer.Option("--op-times/--no-op-times", help="Ask engines for times of single ops.")
]
FramesOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help=f"Frames of a made-up video to track end to end; of a bundle that tracks "
        f"{FRAMES} unless stages are chosen.",
    ),
]
RunnerOption = Annotated[
    Path | None, typer.Option(help="With adb: the program that runs models on the phone.")
]
PythonOption = Annotated[
    str, typer.Option(help="With ssh: the interpreter there.", metavar="PROGRAM")
]
BootstrapOption = Annotated[
    bool,
    typer.Option(
        "--bootstrap/--no-bootstrap",
        help="With ssh: set up Phoneward in ~/.cache there if it is not installed.",
    ),
]
WheelhouseOption = Annotated[
    Path | None,
    typer.Option(
        help="With ssh: a local folder of wheels to set up from, without a network there.",
        metavar="FOLDER",
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Name of the device file that describes the machine.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File for the report.", metavar="FILE"),
]

"""`phoneward track`: objects through a video, from a click, a box or a mask."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phoneward.apps.cli.options import (
    EngineOption,
    FormatOption,
    PrecisionOption,
    ThreadsOption,
)
from phoneward.apps.cli.output import JsonFlag, print_json, progress_bar
from phoneward.errors import PromptError

if TYPE_CHECKING:
    from phoneward.apps.cli.tracking import Run
    from phoneward.runtime.follow import PromptAt
    from phoneward.runtime.frames import Frames
    from phoneward.runtime.stream import StreamReport

EXAMPLE = "Example: phoneward track tam street.mp4 --point 0:412,233 -o street"


def command(
    bundle: Annotated[Path, typer.Argument(help="A folder that `export` wrote.")],
    video: Annotated[
        str, typer.Argument(help="A video, an image, a folder of images, or camera:0.")
    ],
    point: Annotated[
        list[str] | None,
        typer.Option(
            help="[OBJECT@]FRAME:X,Y[,LABEL] in pixels; LABEL 0 is beside the object; repeatable.",
            metavar="POINT",
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(help="[OBJECT@]FRAME:X0,Y0,X1,Y1; repeatable.", metavar="BOX"),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            help="[OBJECT@]FRAME:FILE, bright and opaque on the object, or a palette image whose "
            "index 0 is the background; repeatable.",
            metavar="MASK",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for overlay.mp4, masks and track.json.", metavar="DIR"
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what an earlier tracking wrote there.")
    ] = False,
    realtime: Annotated[
        bool,
        typer.Option("--realtime", help="Play at the video's pace and drop what comes too fast."),
    ] = False,
    rate: Annotated[
        float, typer.Option(min=0.001, help="Frames a second in a folder of images.")
    ] = 30.0,
    engine: EngineOption = None,
    format_name: FormatOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = 2,
    json_output: JsonFlag = False,
) -> int:
    """Follow objects through a video and write their masks.

    OBJECT is a number of your choice, 1 unless given; FRAME counts from 0. Frames before the first
    prompt are passed over; a later prompt for the same object corrects it. A camera is always
    played in real time and ends with Ctrl-C. If something fails on the way, what was tracked until
    then is kept.
    """
    from phoneward.apps.cli.prompts import parse_prompts
    from phoneward.apps.cli.tracking import Run
    from phoneward.bundle import Bundle
    from phoneward.quiet import noise_to
    from phoneward.runtime.frames import open_frames
    from phoneward.runtime.outputs import TRACKS, TrackFolder, check_apart
    from phoneward.runtime.tracker import Tracker

    if output is None and not json_output:
        raise PromptError("say where to write: give -o DIR, or --json")
    prompts = parse_prompts(point or (), box or (), mask or ())
    opened = Bundle.open(bundle)
    with ExitStack() as stack:
        frames = stack.enter_context(open_frames(video, rate=rate))
        _check_frames_exist(frames, prompts)
        if output is not None:
            if not frames.live:
                check_apart(output, Path(video))
            TRACKS.check_free(output, force=force)
        progress = stack.enter_context(progress_bar(quiet=json_output or not sys.stderr.isatty()))
        stack.enter_context(noise_to(Path(os.devnull)))
        tracker = stack.enter_context(
            Tracker.open(
                opened,
                engine=engine,
                format_name=format_name,
                precision=precision,
                threads=threads,
            )
        )
        live = realtime or frames.live
        about = {"video": video, "bundle": str(bundle), "engine": tracker.engine, "realtime": live}
        folder = TrackFolder(output, about, force=force) if output is not None else None
        run = Run(frames, prompts, folder, progress, keep_rows=json_output)
        run.play(tracker, realtime=live)
    return _tell(run, about, output, json_output=json_output)


def _check_frames_exist(frames: Frames, prompts: tuple[PromptAt, ...]) -> None:
    from phoneward.runtime.follow import no_such_frame

    if frames.most is not None and (late := [p for p in prompts if p.frame >= frames.most]):
        raise PromptError(no_such_frame(late[0], frames.most))


def _tell(run: Run, about: dict[str, Any], output: Path | None, *, json_output: bool) -> int:
    from phoneward.apps.cli.tracking import as_json

    message = str(run.error) if run.error else None
    if json_output:
        stream = {"stream": as_json(run.stream)} if run.stream is not None else {}
        print_json({**about, **stream, "frames": run.rows, "error": message})
    else:
        rate = f"{run.tracked / run.seconds:.1f} frames/s" if run.seconds else ""
        print(f"{run.tracked} frames tracked ({about['engine']}), {rate}: {output}")
        if run.stream is not None:
            _tell_stream(run.stream)
    if run.error is None:
        return 0
    kept = f"; {run.tracked} frames are kept in {output}" if output is not None else ""
    print(f"error: {message}{kept}", file=sys.stderr)
    return run.error.exit_code


def _tell_stream(report: StreamReport) -> None:
    latency = ", ".join(f"{name} {value:.1f}" for name, value in report.latency_ms.items())
    print(
        f"real time: {report.rate:.1f} frames/s, {report.dropped} dropped; "
        f"capture to result, ms: {latency}; jitter {report.jitter_ms:.1f}"
    )

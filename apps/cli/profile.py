"""`phoneward profile`: how fast a bundle's artifacts are, on this machine or on another."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from phoneward.apps.cli.options import EngineOption
from phoneward.apps.cli.output import JsonFlag, progress_bar
from phoneward.apps.cli.profile_options import (
    FRAMES,
    BootstrapOption,
    BundleArgument,
    ColdStartsOption,
    CoresOption,
    DeviceOption,
    FormatOption,
    FramesOption,
    OpTimesOption,
    OutputOption,
    PlaceOption,
    PrecisionOption,
    PythonOption,
    RunnerOption,
    RunsOption,
    StageOption,
    SustainedOption,
    ThreadsOption,
    WheelhouseOption,
)
from phoneward.errors import OutputError, PlaceError

if TYPE_CHECKING:
    from phoneward.bundle import Bundle

EXAMPLE = "Example: phoneward profile lite0 --on host -o lite0.json"


def command(
    bundle: BundleArgument,
    on: PlaceOption = "host",
    engine: EngineOption = None,
    format_name: FormatOption = None,
    precision: PrecisionOption = None,
    stage: StageOption = None,
    threads: ThreadsOption = 1,
    cores: CoresOption = None,
    runs: RunsOption = 50,
    cold_starts: ColdStartsOption = 3,
    sustained: SustainedOption = 0.0,
    op_times: OpTimesOption = True,
    frames: FramesOption = None,
    runner: RunnerOption = None,
    python: PythonOption = "python3",
    bootstrap: BootstrapOption = True,
    wheelhouse: WheelhouseOption = None,
    device: DeviceOption = None,
    output: OutputOption = None,
    json_output: JsonFlag = False,
) -> None:
    """Time every artifact of a bundle, each engine in processes of its own.

    The report has each inference's duration, cold and warm load, peak memory and, where the
    engine tells, the times of single ops. What may spoil the figures is listed as warnings.
    """
    from phoneward.apps.cli.latency import print_report
    from phoneward.bundle import Bundle
    from phoneward.profiles.device import load_device
    from phoneward.profiles.measure import PLACES, Request, Setup, split_place
    from phoneward.profiles.report.file import write_report
    from phoneward.quiet import noise_to
    from phoneward.runtime.artifacts import Wanted

    place, address = split_place(on)
    _check_output(output)
    if device is not None:
        load_device(device)
    opened = Bundle.open(bundle)
    request = Request(
        bundle=opened,
        wanted=Wanted(engine, format_name, precision),
        stages=tuple(stage or ()),
        threads=threads,
        cores=parse_cores(cores),
        runs=runs,
        cold_starts=cold_starts,
        sustained_s=sustained,
        op_times=op_times,
        frames=_frames(frames, opened, chosen=bool(stage), place=place),
        runner=runner,
        device=device,
        setup=Setup(python, bootstrap, wheelhouse),
    )
    steps = 0
    with (
        progress_bar(quiet=json_output or not sys.stderr.isatty()) as bar,
        noise_to(Path(os.devnull)),
    ):

        def progress(step: str) -> None:
            nonlocal steps
            bar(step, steps, steps + 1)
            steps += 1

        report = PLACES.get(place)(address, request, progress)
    if output is not None:
        write_report(report, output)
    if json_output:
        print(report.model_dump_json(indent=2))
        return
    print_report(report)
    if output is not None:
        print(f"Report: {output}")


def parse_cores(text: str | None) -> tuple[int, ...]:
    """`2,4-6` is (2, 4, 5, 6), nothing is (); raises `PlaceError` for anything else."""
    if text is None:
        return ()
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        with contextlib.suppress(ValueError):
            ends = int(first), int(last if dash else first)
            if 0 <= ends[0] <= ends[1] < os.sysconf("SC_OPEN_MAX") and first.isdecimal():
                found += range(ends[0], ends[1] + 1)
                continue
        raise PlaceError("host", f"--cores {text!r} is no list of cores such as 2,3 or 4-7")
    return tuple(dict.fromkeys(found))


def _check_output(output: Path | None) -> None:
    """Refuse at once what would be found out after minutes."""
    if output is None:
        return
    if output.is_dir():
        raise OutputError(f"cannot write {output}: it is a folder")
    if not output.absolute().parent.is_dir():
        raise OutputError(f"cannot write {output}: no such folder")
    if not os.access(output.absolute().parent, os.W_OK):
        raise OutputError(f"cannot write {output}: no permission")


def _frames(asked: int | None, bundle: Bundle, *, chosen: bool, place: str) -> int:
    from phoneward.runtime.tracker import STAGES

    if asked is not None:
        return asked
    tracks = set(STAGES) <= {stage.name for stage in bundle.manifest.stages}
    return FRAMES if tracks and not chosen and place in ("host", "ssh") else 0

"""`adb[:serial]`: an Android phone, by adb and a program that times models there.

It was never run on a phone for this version: the tests replay what the programs print, and a
shell of this machine stands for the phone's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from phoneward import __version__
from phoneward.errors import PlaceError
from phoneward.names import Provenance
from phoneward.profiles.bundle_kernels import kernels_if_stated
from phoneward.profiles.measure.android.benchmark_model import BenchmarkModel
from phoneward.profiles.measure.android.client import Folder, find_phone, folder_on, how_it_ended
from phoneward.profiles.measure.android.executor_runner import ExecutorRunner
from phoneward.profiles.measure.android.facts import (
    check_program,
    check_room,
    machine_of,
    parse_properties,
    thermal,
)
from phoneward.profiles.measure.android.runner import Runner, RunnerError, Task
from phoneward.profiles.measure.stage import Ran, stage_report
from phoneward.profiles.measure.subset import wanted_artifacts
from phoneward.profiles.report.schema import LatencyReport, StageReport, Subject
from phoneward.runtime.artifacts import check_unchanged

if TYPE_CHECKING:
    from phoneward.bundle import Artifact
    from phoneward.profiles.measure import Request

RUNNERS: tuple[Runner, ...] = (BenchmarkModel(), ExecutorRunner())
_PROGRAM = "runner"


def profile(address: str, request: Request, progress: Callable[[str], None]) -> LatencyReport:
    """Push a runner and artifacts to a phone, time them there, and leave nothing behind.

    Raises:
        PlaceUnreachable: no phone, not allowed, offline, or unplugged in the middle.
        WrongArchitecture: the runner is for another processor.
        PlaceError: no adb, no runner, no room, or the runner did not do what it should.
        BundleError, ArtifactChanged, UnknownName: of the bundle or of what is asked of it.
    """
    phone = find_phone(address)
    program = _check_asked(phone.place, request)
    properties = parse_properties(phone.shell("getprop"))
    check_program(phone.place, program, properties)
    with folder_on(phone) as folder:
        check_room(phone, program.stat().st_size)
        folder.push(program, _PROGRAM, program=True)
        runner, help_text = _identify(folder)
        formats = {runner.format}
        chosen = wanted_artifacts(request, formats, f"{phone.place} with {runner.name}")
        machine = machine_of(phone, properties, request.device)
        stages = []
        for artifact in chosen:
            progress(f"timing {artifact.stage} ({artifact.format}-{artifact.precision})")
            stages.append(_stage(folder, runner, help_text, request, artifact))
        after = thermal(phone)
    facts = {**machine.facts, **({"thermal status after": after} if after else {})}
    hot = after not in (None, "none")
    return LatencyReport(
        provenance=Provenance.MEASURED,
        created=datetime.now(timezone.utc),
        phoneward=__version__,
        place=phone.place,
        subject=Subject(
            model=request.bundle.manifest.model, weights=request.bundle.manifest.weights.kind
        ),
        machine=machine.model_copy(update={"facts": facts}),
        tools={"runner": runner.name},
        stages=tuple(stages),
        warnings=(f"the phone was hot afterwards: thermal status {after}",) if hot else (),
    )


def _check_asked(place: str, request: Request) -> Path:
    if request.runner is None:
        names = " or ".join(runner.name for runner in RUNNERS)
        raise PlaceError(place, f"needs --runner: the file of {names}, built for Android")
    if request.sustained_s:
        raise PlaceError(place, "a sustained run is not offered: the runners tell no drift")
    if request.frames:
        raise PlaceError(place, "tracking end to end is not offered: the runners know no frames")
    return request.runner


def _identify(folder: Folder) -> tuple[Runner, str]:
    place = folder.phone.place
    code, said = folder.run([f"./{_PROGRAM}", "--help"])
    for runner in RUNNERS:
        if runner.describes(said):
            return runner, said
    if code > 1:
        raise PlaceError(place, f"the runner {how_it_ended(code)} when asked for --help")
    first = next((line.strip() for line in said.splitlines() if line.strip()), "nothing")
    names = " nor ".join(runner.name for runner in RUNNERS)
    raise PlaceError(place, f"the runner is neither {names}; it says: {first}")


def _stage(
    folder: Folder, runner: Runner, help_text: str, request: Request, artifact: Artifact
) -> StageReport:
    place, source = folder.phone.place, request.bundle.file(artifact)
    check_unchanged(source, artifact.sha256)
    check_room(folder.phone, artifact.bytes)
    model = f"model{source.suffix}"
    folder.push(source, model)
    bound = ["taskset", f"{sum(1 << core for core in request.cores):x}"] if request.cores else []

    def run(arguments: Sequence[str]) -> str:
        code, said = folder.run([*bound, f"./{_PROGRAM}", *arguments], runner.log_tag)
        if code:
            last = [line.strip() for line in said.splitlines() if line.strip()][-3:]
            raise RunnerError(f"{runner.name} {how_it_ended(code)}: {' / '.join(last) or 'silent'}")
        return said

    try:
        measured, delegate = runner.measure(Task(artifact, model, request, run), help_text)
    except RunnerError as error:
        raise PlaceError(place, str(error)) from error
    ran = Ran(
        runner.engine,
        delegate=delegate,
        unit="cpu",
        threads=request.threads,
        pinned_cores=request.cores,
    )
    return stage_report(artifact, ran, measured, kernels_if_stated(request.bundle, artifact))

"""`host`: this machine, each artifact and engine in processes of its own."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phoneward import __version__
from phoneward.errors import PlaceError
from phoneward.names import Provenance
from phoneward.profiles.measure.local.assemble import frame_report, measured, stage_report
from phoneward.profiles.measure.local.facts import this_machine, tools
from phoneward.profiles.measure.local.noise import (
    DRIFT,
    UNEVEN,
    before_warnings,
    load_average,
    others_warning,
)
from phoneward.profiles.measure.local.pinning import check_cores
from phoneward.profiles.measure.local.process import run_worker
from phoneward.profiles.measure.local.records import (
    FramesJob,
    Ops,
    OpsJob,
    Setting,
    Sustained,
    SustainedJob,
    Timed,
    TimeJob,
    Tracked,
)
from phoneward.profiles.measure.local.subjects import Subject, choose_subjects, setting_of
from phoneward.profiles.report.schema import LatencyReport, Measured, StageReport
from phoneward.profiles.report.schema import Subject as Profiled
from phoneward.runtime.artifacts import choose_set
from phoneward.runtime.parity import Reference
from phoneward.runtime.tracker import STAGES
from phoneward.staging import staging_folder

if TYPE_CHECKING:
    from phoneward.profiles.measure import Request

PROCESSES = 5
"""Processes that share the timed inferences of an artifact: the interval needs at least three."""
_FRAME_PROCESSES = 3
_OP_RUNS = 20

Progress = Callable[[str], None]


@dataclass(frozen=True)
class _Plan:
    """One subject, what its workers are told, and the folder of their files."""

    subject: Subject
    setting: Setting
    folder: Path


def profile(address: str, request: Request, progress: Progress) -> LatencyReport:
    """Profile on this machine; `address` is empty.

    Every artifact is timed in several processes, which take turns with those of the others: a
    slow spell of the machine hits one process of each rather than all of one.

    Raises:
        PlaceError: cores that are not there, no runs, a worker that failed, no room.
        BundleError, ArtifactChanged, UnknownName, MissingExtra, EngineError: as
            `choose_subjects`.
    """
    _check(address, request)
    subjects, warnings = choose_subjects(request)
    machine = this_machine(request.device)
    warnings += before_warnings(load_average(), machine.facts, machine.cores or 1)
    try:
        with staging_folder(Path(tempfile.gettempdir()), "phoneward-profile-") as folder:
            plans = _plans(request, subjects, folder)
            stages = _stages(request, plans, progress, warnings)
            frame = _frame(request, folder, progress, warnings) if request.frames else None
    except OSError as error:
        raise PlaceError(
            "host", f"{error.filename or tempfile.gettempdir()}: {error.strerror or error}"
        ) from error
    manifest = request.bundle.manifest
    return LatencyReport(
        provenance=Provenance.MEASURED,
        created=datetime.now(timezone.utc),
        phoneward=__version__,
        place="host",
        subject=Profiled(model=manifest.model, weights=manifest.weights.kind),
        machine=machine,
        tools=tools({subject.engine for subject in subjects}),
        stages=stages,
        end_to_end=frame,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _check(address: str, request: Request) -> None:
    if address:
        raise PlaceError(f"host:{address}", "this machine has no address; say --on host")
    for name, value, least in (
        ("runs", request.runs, 1),
        ("threads", request.threads, 1),
        ("cold starts", request.cold_starts, 0),
        ("frames", request.frames, 0),
        ("seconds of a sustained run", request.sustained_s, 0),
    ):
        if not value >= least:
            raise PlaceError("host", f"{name}: {value} is less than {least}")
    check_cores(request.cores)


def _plans(request: Request, subjects: list[Subject], folder: Path) -> list[_Plan]:
    reference = Reference.load(request.bundle.path / request.bundle.manifest.reference)
    plans = []
    for number, subject in enumerate(subjects):
        own = folder / str(number)
        own.mkdir()
        plans.append(_Plan(subject, setting_of(request, subject, reference, own), own))
    return plans


def _stages(
    request: Request, plans: list[_Plan], progress: Progress, warnings: list[str]
) -> tuple[StageReport, ...]:
    timed = _timed(request, plans, progress)
    reports = []
    for number, plan in enumerate(plans):
        ops = _ops(plan, progress) if request.op_times else None
        lasting = _sustained(plan, request.sustained_s, progress) if request.sustained_s else None
        result = measured(timed[number], ops, lasting, request.cold_starts)
        warnings += _stage_warnings(plan.subject, result, timed[number], ops, lasting)
        reports.append(stage_report(request, plan.subject, result))
    return tuple(reports)


def _timed(request: Request, plans: list[_Plan], progress: Progress) -> dict[int, list[Timed]]:
    """Let the processes of all subjects take turns; those beyond the samplers only load."""
    shares = _split(request.runs, PROCESSES)
    rounds = shares + [0] * (request.cold_starts - len(shares))
    found: dict[int, list[Timed]] = defaultdict(list)
    for number, runs in enumerate(rounds, start=1):
        for key, plan in enumerate(plans):
            progress(f"process {number} of {len(rounds)}: {plan.subject}")
            job = TimeJob(setting=plan.setting, runs=runs, spawned_ns=time.perf_counter_ns())
            found[key].append(run_worker(job, Timed, plan.folder, str(plan.subject)))
    return found


def _split(runs: int, processes: int) -> list[int]:
    """Share runs out evenly; no process without any."""
    each, rest = divmod(runs, processes)
    return [n for n in (each + (number < rest) for number in range(processes)) if n]


def _ops(plan: _Plan, progress: Progress) -> Ops:
    progress(f"op times: {plan.subject}")
    return run_worker(
        OpsJob(setting=plan.setting, runs=_OP_RUNS), Ops, plan.folder, f"op times of {plan.subject}"
    )


def _sustained(plan: _Plan, seconds: float, progress: Progress) -> Sustained:
    progress(f"{seconds:g} s without a pause: {plan.subject}")
    job = SustainedJob(setting=plan.setting, seconds=seconds)
    return run_worker(job, Sustained, plan.folder, f"sustained run of {plan.subject}")


def _stage_warnings(
    subject: Subject,
    result: Measured,
    timed: list[Timed],
    ops: Ops | None,
    lasting: Sustained | None,
) -> list[str]:
    found = others_warning(
        str(subject), [*(one.others for one in timed), lasting.others if lasting else None]
    )
    if not result.steady:
        found.append(f"{subject}: did not become steady in the warm-up")
    p50, p90 = np.percentile(result.samples_ns, (50, 90))
    if p90 > UNEVEN * p50:
        found.append(f"{subject}: uneven samples, p90 is {p90 / p50:.2f} times the median")
    if ops is not None and ops.reason:
        found.append(f"{subject}: no op times: {ops.reason}")
    if result.sustained:
        drift = result.sustained[-1].p50_ns / result.sustained[0].p50_ns - 1
        if abs(drift) > DRIFT:
            found.append(f"{subject}: drifted by {drift:+.0%} in the sustained run")
    return found


def _frame(request: Request, folder: Path, progress: Progress, warnings: list[str]) -> StageReport:
    """Track end to end with the first format and precision that all stages have."""
    artifacts, engine = choose_set(request.bundle, STAGES, request.wanted)
    subject = Subject(artifacts[STAGES[0]], engine)
    one = subject.artifact
    tracked = []
    for number, frames in enumerate(_split(request.frames, _FRAME_PROCESSES), start=1):
        progress(f"tracking, process {number}: {one.format}-{one.precision}, {engine}")
        job = FramesJob(
            bundle=request.bundle.path.absolute(),
            engine=engine,
            format_name=one.format,
            precision=one.precision,
            threads=request.threads,
            cores=request.cores,
            frames=frames,
            spawned_ns=time.perf_counter_ns(),
        )
        tracked.append(run_worker(job, Tracked, folder, f"tracking with {engine}"))
    warnings += others_warning("tracking", [each.others for each in tracked])
    last = tracked[-1]
    if last.filled_slots < last.slots:
        warnings.append(
            f"tracking: {last.filled_slots} of {last.slots} slots of the memory bank were filled"
        )
    return frame_report(request, subject, tracked, request.cold_starts)

"""What worker processes answered, put together as the parts of a report."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from phoneward.profiles.bundle_kernels import kernels_if_stated
from phoneward.profiles.measure.local.facts import engine_version
from phoneward.profiles.measure.local.interval import next_median
from phoneward.profiles.measure.stage import Ran
from phoneward.profiles.measure.stage import stage_report as artifact_report
from phoneward.profiles.report.schema import Measured, Memory, OpTime, StageReport

if TYPE_CHECKING:
    from phoneward.profiles.measure import Request
    from phoneward.profiles.measure.local.records import Ops, Sustained, Timed, Tracked
    from phoneward.profiles.measure.local.subjects import Subject

# what executes the ops an engine leaves to nobody else
_DELEGATES = {"litert": "XNNPACK", "onnxruntime": "CPU", "executorch": "XNNPACK"}


def measured(
    timed: Sequence[Timed], ops: Ops | None, sustained: Sustained | None, cold_starts: int
) -> Measured:
    """Join the answers of several processes, of which at least one took samples."""
    sampled = [one for one in timed if one.samples_ns]
    cold = timed[:cold_starts]
    return Measured(
        samples_ns=tuple(value for one in sampled for value in one.samples_ns),
        process_samples=tuple(len(one.samples_ns) for one in sampled),
        median_interval_ns=_interval([one.samples_ns for one in sampled]),
        first_ns=round(statistics.median(one.first_ns for one in sampled if one.first_ns)),
        warmup_runs=round(statistics.median(one.warmup_runs for one in sampled)),
        steady=all(one.steady for one in sampled),
        cold_load_ns=tuple(one.cold_load_ns for one in cold),
        warm_load_ns=tuple(one.warm_load_ns for one in sampled if one.warm_load_ns),
        process_start_ns=tuple(one.process_start_ns for one in cold),
        memory=_largest([one.memory for one in sampled]),
        ops=ops.ops if ops else (),
        sustained=sustained.windows if sustained else (),
    )


def stage_report(request: Request, subject: Subject, result: Measured) -> StageReport:
    """Say of one artifact on one engine what the bundle knows and the workers found."""
    artifact, engine = subject.artifact, subject.engine
    ran = Ran(
        engine,
        engine_version=engine_version(engine),
        delegate=artifact.delegation.delegate if artifact.delegation else _DELEGATES.get(engine),
        unit=None if engine == "coreml" else "cpu",
        threads=request.threads,
        pinned_cores=request.cores,
    )
    return artifact_report(artifact, ran, result, kernels_if_stated(request.bundle, artifact))


def frame_report(
    request: Request, subject: Subject, tracked: Sequence[Tracked], cold_starts: int
) -> StageReport:
    """Report whole frames; `ops` has the stages inside the loop and the host's own share."""
    result = Measured(
        samples_ns=tuple(value for one in tracked for value in one.frames_ns),
        process_samples=tuple(len(one.frames_ns) for one in tracked),
        median_interval_ns=_interval([one.frames_ns for one in tracked]),
        first_ns=round(statistics.median(one.first_ns for one in tracked)),
        warmup_runs=tracked[0].warmup_runs,
        cold_load_ns=tuple(one.load_ns for one in tracked[:cold_starts]),
        process_start_ns=tuple(one.process_start_ns for one in tracked[:cold_starts]),
        memory=_largest([one.memory for one in tracked]),
        ops=_loop(tracked),
    )
    return StageReport(
        stage="frame",
        format=subject.artifact.format,
        precision=subject.artifact.precision,
        engine=subject.engine,
        engine_version=engine_version(subject.engine),
        delegate=_DELEGATES.get(subject.engine),
        unit=None if subject.engine == "coreml" else "cpu",
        threads=request.threads,
        pinned_cores=request.cores,
        result=result,
    )


def _loop(tracked: Sequence[Tracked]) -> tuple[OpTime, ...]:
    """The median of each stage per frame, and of what of each frame no stage took."""
    per_stage: dict[str, list[int]] = {}
    host: list[int] = []
    for one in tracked:
        frames = len(one.frames_ns)
        spent = np.zeros(frames, np.int64)
        for name, durations in one.stages_ns.items():
            if durations:
                # every tracked frame runs a stage equally often, so that calls split evenly
                sums = np.array(durations, np.int64).reshape(frames, -1).sum(axis=1)
                per_stage.setdefault(name, []).extend(int(value) for value in sums)
                spent += sums
        host.extend(int(v) for v in np.array(one.frames_ns, np.int64) - spent)
    unit = "cpu"
    stages = [
        OpTime(name=name, kind="stage", unit=unit, median_ns=round(statistics.median(values)))
        for name, values in per_stage.items()
    ]
    own = round(statistics.median(host))
    return (*stages, OpTime(name="host", kind="host", unit=unit, median_ns=max(0, own)))


def _interval(processes: Sequence[Sequence[int]]) -> tuple[int, int] | None:
    """The interval of the next process's median, wide enough to hold the median of all."""
    interval = next_median(processes)
    if interval is None:
        return None
    pooled = statistics.median(value for samples in processes for value in samples)
    return min(interval[0], int(pooled)), max(interval[1], round(pooled))


def _largest(marks: Sequence[Memory | None]) -> Memory | None:
    known = [mark for mark in marks if mark is not None]
    return max(known, key=lambda mark: mark.peak_bytes) if known else None

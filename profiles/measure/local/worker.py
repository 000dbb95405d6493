"""The worker: one artifact on one engine in a process of its own.

`python -m phoneward.profiles.measure.local.worker JOB ANSWER`. Idle threads of a second engine in
the same process would cost the first up to half its speed, and only a fresh process loads cold.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydantic import TypeAdapter

from phoneward.errors import EngineError, PhonewardError
from phoneward.profiles.measure.local.frames import track_frames
from phoneward.profiles.measure.local.memory import MemoryMark
from phoneward.profiles.measure.local.noise import with_others
from phoneward.profiles.measure.local.pinning import bind
from phoneward.profiles.measure.local.process import NO_ROOM
from phoneward.profiles.measure.local.records import (
    Failure,
    FramesJob,
    Job,
    Ops,
    OpsJob,
    Setting,
    Sustained,
    SustainedJob,
    Timed,
    TimeJob,
)
from phoneward.profiles.measure.local.steadiness import sample, sustain, warm_up
from phoneward.profiles.report.schema import OpTime
from phoneward.runtime.engines import open_session
from phoneward.runtime.engines.preload import preload
from phoneward.runtime.op_times import OpRun, op_times
from phoneward.spec import Spec

if TYPE_CHECKING:
    from phoneward.runtime.engines.session import Session


def time_artifact(job: TimeJob) -> Timed:
    """Load cold; unless no runs are wanted infer, warm up, take samples, and load once more."""
    setting = job.setting
    feeds = _feeds(setting)
    preload(setting.engine)
    mark = MemoryMark.set()
    ready = time.perf_counter_ns()
    session = _open(setting)
    loaded = time.perf_counter_ns()
    times = {"process_start_ns": ready - job.spawned_ns, "cold_load_ns": loaded - ready}
    with session:
        if not job.runs:
            return Timed.model_validate(times)
        run = partial(session, feeds)
        (first,) = sample(run, 1)
        # the warm-up too: the samples alone may take less than the system can tell
        (warmup, samples), others = with_others(lambda: (warm_up(run), sample(run, job.runs)))
        memory = mark.peak()
    again = time.perf_counter_ns()
    with _open(setting):
        warm = time.perf_counter_ns() - again
    return Timed(
        **times,
        first_ns=first,
        warmup_runs=warmup[0],
        steady=warmup[1],
        samples_ns=samples,
        warm_load_ns=warm,
        memory=memory,
        others=others,
    )


def ask_ops(job: OpsJob) -> Ops:
    """Let the engine tell where its time goes, or why it cannot."""
    setting = job.setting
    table = op_times(
        setting.engine,
        OpRun(
            path=setting.path,
            inputs=setting.inputs,
            outputs=setting.outputs,
            threads=setting.threads,
            tensors=_feeds(setting),
            runs=job.runs,
        ),
    )
    ops = tuple(
        OpTime(
            name=op.name,
            kind=op.kind,
            module=op.module,
            unit=op.unit,
            median_ns=op.median_ns,
            calls=op.calls,
        )
        for op in table.ops
    )
    return Ops(ops=ops, reason=table.reason)


def sustain_artifact(job: SustainedJob) -> Sustained:
    """Load, and infer without a pause from the first inference on."""
    feeds = _feeds(job.setting)
    with _open(job.setting) as session:
        run = partial(session, feeds)
        windows, others = with_others(lambda: sustain(run, job.seconds))
    return Sustained(windows=windows, others=others)


def _open(setting: Setting) -> Session:
    return open_session(
        setting.engine, setting.path, setting.inputs, setting.outputs, setting.threads
    )


def _feeds(setting: Setting) -> dict[str, Any]:
    with np.load(setting.tensors, allow_pickle=False) as archive:
        return {spec.name: archive[spec.name] for spec in setting.inputs}


_TASKS: dict[str, Callable[[Any], Spec]] = {
    "time": time_artifact,
    "ops": ask_ops,
    "sustained": sustain_artifact,
    "frames": track_frames,
}


def serve(job_file: Path, answer_file: Path) -> int:
    """Do the job in a file and write the answer to another; returns the exit code."""
    text = job_file.read_text(encoding="utf-8")
    job = cast("TimeJob | OpsJob | SustainedJob | FramesJob", _JOBS.validate_json(text))
    answer: Spec
    code = 0
    try:
        bind(job.cores if isinstance(job, FramesJob) else job.setting.cores)
        answer = _TASKS[job.task](job)
    except (PhonewardError, MemoryError) as error:
        told = str(error) or "not enough memory"
        answer, code = Failure(kind=type(error).__name__, error=told), EngineError.exit_code
    try:
        answer_file.write_text(answer.model_dump_json(), encoding="utf-8")
    except OSError:
        answer_file.unlink(missing_ok=True)
        return NO_ROOM
    return code


def _end_with_parent() -> None:
    """Wait until whoever started this process closes its end of standard input, then end."""
    sys.stdin.buffer.read()
    os._exit(EngineError.exit_code)


_JOBS: TypeAdapter[Any] = TypeAdapter(Job)

if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = serve(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    # engines' threads and the reader of standard input need not be unwound
    os._exit(code)

"""Child process: load one artifact with one engine, warm up, time it, return raw samples.

One engine a process: the idle threads of a second one would cost the first up to half its speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.apps.bench.child import serve
from phoneward.apps.bench.records import EAGER, TimeJob, Timing
from phoneward.profiles.measure.local.steadiness import (
    AT_LEAST_S,
    AT_MOST_S,
    WINDOW,
    is_steady,
    sample,
)
from phoneward.runtime.engines import open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Run = Callable[[], NDArray[Any]]


def measure(job: TimeJob) -> Timing:
    """Time the calls of a session, input and output copies included, and save the first output."""
    with ExitStack() as stack:
        started = time.perf_counter_ns()
        run = _eager(job) if job.subject.engine == EAGER else _session(job, stack)
        loaded = time.perf_counter_ns()
        answer = run()
        first = time.perf_counter_ns()
        np.save(job.answer, answer)
        warmup, steady = warm_up(run)
        return Timing(
            load_ns=loaded - started,
            first_ns=first - loaded,
            warmup=warmup + 1,
            steady=steady,
            samples_ns=sample(run, job.runs),
        )


def warm_up(run: Callable[[], object]) -> tuple[int, bool]:
    """Run until two windows of five runs have medians within 3 %, for 0.3 s to 3 s.

    Returns the number of runs and whether they became steady.
    """
    durations: list[int] = []
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < AT_MOST_S:
        durations.extend(sample(run, WINDOW))
        if elapsed >= AT_LEAST_S and is_steady(durations):
            return len(durations), True
    return len(durations), False


def _session(job: TimeJob, stack: ExitStack) -> Run:
    session = stack.enter_context(
        open_session(job.subject.engine, Path(job.path or ""), job.inputs, job.outputs, job.threads)
    )
    feeds = {job.inputs[0].name: np.load(job.tensor)}
    output = job.outputs[0].name
    return lambda: session(feeds)[output]


def _eager(job: TimeJob) -> Run:
    import torch

    from phoneward.apps.bench.convert import plain_model

    torch.set_num_threads(job.threads)
    model, image = plain_model(job.subject.model)

    def run() -> Any:
        with torch.inference_mode():
            return model(image).numpy()

    return run


if __name__ == "__main__":
    serve(TimeJob, measure)

"""Child process: EfficientTAM's stages on one engine, run in turn as a tracker runs them, timed.

One engine a process: the idle threads of a second one would cost the first up to half its speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.apps.bench.child import serve
from phoneward.apps.bench.records import EAGER
from phoneward.apps.bench.tam_prepare import build, flat
from phoneward.apps.bench.tam_records import ATTENDS, FRAME, MATMUL, StageTiming, TimeStages
from phoneward.profiles.measure.local.steadiness import sample
from phoneward.runtime.engines import open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.spec import TensorSpec

    Arrays = dict[str, NDArray[Any]]
    Run = Callable[[], Arrays]

# memory is allocated and threads are started in the first run; a second one is as the hundredth
_WARM_UP = 2
PRODUCTS = {"2048x2048x2048": (2048, 2048, 2048), "1024x256x7232": (1024, 256, 7232)}
"""Rows, inner and columns of the matrix products that stand for what the machine can do."""


def measure(job: TimeStages) -> StageTiming:
    """Time each stage, input and output copies included, and save the first outputs."""
    answers: dict[str, Arrays] = {}
    samples: dict[str, tuple[int, ...]] = {}
    stages = tuple(file for file in job.files if file.stage not in ATTENDS)
    attends = tuple(file for file in job.files if file.stage in ATTENDS)
    # one after the other: a tracker has the stages open, and nothing else
    for files in (stages, attends) if attends else (stages,):
        with ExitStack() as stack:
            runs = _runs(job.model_copy(update={"files": files}), stack)
            answers |= {name: run() for name, run in runs.items()}
            take_turns(runs, _WARM_UP - 1)
            samples |= take_turns(runs, job.runs)
    np.savez(job.answer, allow_pickle=False, **flat(answers))
    return StageTiming(samples_ns=samples)


def take_turns(runs: Mapping[str, Callable[[], object]], count: int) -> dict[str, tuple[int, ...]]:
    """Run a frame's stages one after another, `count` times, then all others in the same way.

    Returns the durations in nanoseconds by name.
    """
    samples: dict[str, tuple[int, ...]] = dict.fromkeys(runs, ())
    frame = [name for name in FRAME if name in runs]
    others = [name for name in runs if name not in FRAME]
    for names in (frame, others):
        for _ in range(count):
            for name in names:
                samples[name] += sample(runs[name], 1)
    return samples


def _runs(job: TimeStages, stack: ExitStack) -> dict[str, Run]:
    if job.subject.engine == MATMUL:
        return _products(job)
    with np.load(job.tensors) as file:
        tensors = {name: file[name] for name in file.files}
    if job.subject.engine == EAGER:
        return _eager(job, tensors)
    runs: dict[str, Run] = {}
    for file in job.files:
        session = stack.enter_context(
            open_session(
                job.subject.engine, Path(file.path), file.inputs, file.outputs, job.threads
            )
        )
        feeds = {spec.name: _laid_out(tensors, file.stage, spec) for spec in file.inputs}
        runs[file.stage] = lambda session=session, feeds=feeds: session(feeds)  # type: ignore[misc]
    return runs


def _laid_out(tensors: Arrays, stage: str, spec: TensorSpec) -> NDArray[np.float32]:
    tensor: NDArray[np.float32] = tensors[f"{stage}/{spec.name}"]
    return np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)) if spec.layout == "NHWC" else tensor


def _eager(job: TimeStages, tensors: Arrays) -> dict[str, Run]:
    import torch

    torch.set_num_threads(job.threads)
    card, modules = build(job.model, job.subject.bank)

    def prepared(stage: Any) -> Run:
        module = modules[stage.name]
        given = [torch.from_numpy(tensors[f"{stage.name}/{spec.name}"]) for spec in stage.inputs]

        def run() -> Arrays:
            with torch.inference_mode():
                answer = module(*given)
            row = (answer,) if isinstance(answer, torch.Tensor) else answer
            return {s.name: a.numpy() for s, a in zip(stage.outputs, row, strict=True)}

        return run

    return {stage.name: prepared(stage) for stage in card.stages}


def _products(job: TimeStages) -> dict[str, Run]:
    import torch

    torch.set_num_threads(job.threads)

    def prepared(rows: int, inner: int, columns: int) -> Run:
        left, right = torch.rand(rows, inner), torch.rand(inner, columns)
        out = torch.empty(rows, columns)

        def run() -> Arrays:
            torch.mm(left, right, out=out)
            return {}

        return run

    return {name: prepared(*shape) for name, shape in PRODUCTS.items()}


if __name__ == "__main__":
    serve(TimeStages, measure)

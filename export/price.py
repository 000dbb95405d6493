"""What the knobs of an export cost and gain, beside the model as it is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.bundle import Artifact, Price
from phoneward.export.job import Job
from phoneward.export.models import find
from phoneward.export.weights import RANDOM
from phoneward.quiet import noise_to
from phoneward.runtime.clip import Clip, logit_difference, mask_ious
from phoneward.runtime.engines import engines_for, open_session
from phoneward.runtime.parity import Reference
from phoneward.staging import staging_folder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from phoneward.runtime.engines.session import Session

TIMED_STAGE = "propagate"
_ROUNDS, _LEAST_ROUNDS = 9, 3
_BUDGET_SECONDS = 10.0


@dataclass(frozen=True)
class Side:
    """One of the two models: its constants, its reference, and its artifact of `propagate`."""

    constants: Mapping[str, int | float | str]
    reference: Reference
    folder: Path
    artifact: Artifact | None

    def describe(self) -> str:
        """Say in words what the knobs are at."""
        slots, pooling = self.constants["memory_slots"], self.constants["pooling"]
        pooled = "no pooling" if pooling == "none" else f"{pooling} pooled"
        pointers = "object pointers" if self.constants["pointer_slots"] else "no object pointers"
        return f"{slots} memory slots, {pooled}, {pointers}"


def make_price(job: Job, artifacts: Sequence[Artifact]) -> Price:
    """Hold the model against itself with no knob turned, which is exported beside it for that.

    Times are those of the first recipe that an engine here can run.
    """
    parts = {"artifacts": [a.sha256 for a in artifacts], "threads": job.options.threads}
    return job.remember(Price, parts, lambda: _make(job, artifacts))


def _make(job: Job, artifacts: Sequence[Artifact]) -> Price:
    plain, _ = find(job.card.name)
    runnable = [a for a in artifacts if a.stage == TIMED_STAGE and engines_for(a.format)]
    ours, theirs = next(iter(runnable), None), None
    with staging_folder(job.folder, "baseline-") as folder:
        other = Job(replace(job.request, model=plain), job.weights, folder, job.options)
        other.make_reference()
        if ours is not None:
            named = (ours.format, ours.precision)
            recipe = next(r for r in job.request.recipes if (r.format, r.precision) == named)
            stage = next(stage for stage in plain.stages if stage.name == TIMED_STAGE)
            theirs = other.make_artifact(stage, recipe)
        with noise_to(job.folder / "logs" / "clips.log"):
            return price_of(
                Side(job.family.constants(job.card), job.reference(), job.folder, ours),
                Side(job.family.constants(plain), other.reference(), folder, theirs),
                random_weights=job.weights.record.kind == RANDOM,
                threads=job.options.threads,
            )


def price_of(turned: Side, baseline: Side, *, random_weights: bool, threads: int) -> Price:
    """Compare the two models' masks in PyTorch and the times of their artifacts, if there are."""
    ours, theirs = (Clip.of(side.reference).logits for side in (turned, baseline))
    ious = mask_ious(theirs, ours)
    price = Price(
        knobs=turned.describe(),
        baseline=baseline.describe(),
        random_weights=random_weights,
        mean_iou=float(np.mean(ious)),
        min_iou=min(ious),
        logit_difference=logit_difference(theirs, ours),
    )
    if turned.artifact is None or baseline.artifact is None:
        return price
    engine = engines_for(turned.artifact.format)[0]
    with ExitStack() as opened:
        sessions = [_open(opened, side, engine, threads) for side in (turned, baseline)]
        times = _in_turns(sessions, [_inputs(turned), _inputs(baseline)])
    timed = {
        "format": turned.artifact.format,
        "precision": turned.artifact.precision,
        "engine": engine,
        "threads": threads,
        "rounds": len(times[0]),
        "milliseconds": statistics.median(times[0]),
        "baseline_milliseconds": statistics.median(times[1]),
    }
    return price.model_copy(update=timed)


def _open(opened: ExitStack, side: Side, engine: str, threads: int) -> Session:
    artifact = _artifact(side)
    path = side.folder / artifact.path
    return opened.enter_context(
        open_session(engine, path, artifact.inputs, artifact.outputs, threads)
    )


def _inputs(side: Side) -> dict[str, NDArray[Any]]:
    """The last sample, which has several memories."""
    tensors = _artifact(side).inputs
    return {t.name: side.reference.inputs(TIMED_STAGE, t)[-1] for t in tensors}


def _artifact(side: Side) -> Artifact:
    if side.artifact is None:
        raise ValueError("a side without an artifact cannot be timed")
    return side.artifact


def _in_turns(sessions: list[Session], inputs: list[dict[str, NDArray[Any]]]) -> list[list[float]]:
    """Milliseconds of each run of each; in turns, so that a drift of the machine meets all alike.

    Slow models get fewer rounds, so that all together take seconds.
    """
    taken: list[list[float]] = [[] for _ in sessions]
    for session, tensors in zip(sessions, inputs, strict=True):
        session(tensors)  # the first run warms up
    began = time.perf_counter()
    for number in range(_ROUNDS):
        if number >= _LEAST_ROUNDS and time.perf_counter() - began > _BUDGET_SECONDS:
            break
        for session, tensors, times in zip(sessions, inputs, taken, strict=True):
            start = time.perf_counter()
            session(tensors)
            times.append(1e3 * (time.perf_counter() - start))
    return taken

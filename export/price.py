"""What the knobs of an export cost and gain, beside the model as it is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.bundle import Artifact, Price
from phoneward.runtime.clip import Clip, logit_difference, mask_ious
from phoneward.runtime.engines import engines_for, open_session
from phoneward.runtime.parity import Reference

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from phoneward.runtime.engines.session import Session

TIMED_STAGE = "propagate"
_ROUNDS = 9


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


def timed_format(formats: Sequence[str]) -> str | None:
    """Return the first of the formats that an engine here can run."""
    return next((name for name in formats if engines_for(name)), None)


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
        mine, others = _in_turns(sessions, [_inputs(turned), _inputs(baseline)])
    timed = {
        "format": turned.artifact.format,
        "precision": turned.artifact.precision,
        "engine": engine,
        "threads": threads,
        "rounds": _ROUNDS,
        "milliseconds": mine,
        "baseline_milliseconds": others,
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


def _in_turns(sessions: list[Session], inputs: list[dict[str, NDArray[Any]]]) -> list[float]:
    """Median milliseconds of each; in turns, so that a drift of the machine meets all alike."""
    taken: list[list[float]] = [[] for _ in sessions]
    for round_number in range(_ROUNDS + 1):
        for session, tensors, times in zip(sessions, inputs, taken, strict=True):
            start = time.perf_counter()
            session(tensors)
            if round_number:  # the first warms up
                times.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(times) for times in taken]

"""A tracker end to end on a made-up video: whole frames, and the stages inside the loop."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.bundle import Bundle
from phoneward.profiles.measure.local.memory import MemoryMark
from phoneward.profiles.measure.local.noise import with_others
from phoneward.profiles.measure.local.records import FramesJob, Tracked
from phoneward.runtime.artifacts import Wanted, choose_set, open_artifact
from phoneward.runtime.engines.preload import preload
from phoneward.runtime.memory_bank import BankShape
from phoneward.runtime.prompts import Prompt
from phoneward.runtime.tracker import STAGES, Tracker

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.runtime.stages import Arrays, Runner
    from phoneward.spec import TensorSpec

HEIGHT, WIDTH = 480, 640
_SIDE, _STEP = 96, 3


class Clocked:
    """A stage that notes how long each of its calls takes, and keeps the last inputs."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.durations_ns: list[int] = []
        self.last: Arrays = {}

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """Return those of the stage."""
        return self._runner.inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """Return those of the stage."""
        return self._runner.outputs

    def __call__(self, tensors: Arrays) -> Arrays:
        """Run the stage."""
        self.last = tensors
        started = time.perf_counter_ns()
        answer = self._runner(tensors)
        self.durations_ns.append(time.perf_counter_ns() - started)
        return answer


def moving_square(index: int) -> NDArray[np.uint8]:
    """Frame `index` of a bright square that wanders over noise: (480, 640, 3) uint8 RGB."""
    frame = np.random.default_rng(7).integers(40, 110, (HEIGHT, WIDTH, 3), np.uint8)
    left, top = _corner(index)
    frame[top : top + _SIDE, left : left + _SIDE] = (230, 180, 40)
    return frame


def track_frames(job: FramesJob) -> Tracked:
    """Prompt the square, track until the memory bank is full, then time `job.frames` frames.

    Raises what `choose_set`, `open_artifact` and `Tracker` raise.
    """
    bundle = Bundle.open(job.bundle)
    wanted = Wanted(job.engine, job.format_name, job.precision)
    artifacts, engine = choose_set(bundle, STAGES, wanted)
    preload(engine)
    mark = MemoryMark.set()
    with ExitStack() as opened:
        ready = time.perf_counter_ns()
        stages = {
            name: Clocked(opened.enter_context(open_artifact(bundle, one, engine, job.threads)))
            for name, one in artifacts.items()
        }
        loaded = time.perf_counter_ns()
        slots = BankShape.of(stages["propagate"].inputs, stages["propagate"].outputs).slots
        tracker = Tracker(stages)
        first = _prompt(tracker)
        for index in range(1, slots + 1):
            tracker.track(index, moving_square(index))
        for stage in stages.values():
            stage.durations_ns.clear()
        frames, others = with_others(lambda: _timed(tracker, slots + 1, job.frames))
        return Tracked(
            process_start_ns=ready - job.spawned_ns,
            load_ns=loaded - ready,
            first_ns=first,
            warmup_runs=slots,
            frames_ns=frames,
            stages_ns={name: tuple(one.durations_ns) for name, one in stages.items()},
            filled_slots=_filled(stages["propagate"].last),
            slots=slots,
            height=HEIGHT,
            width=WIDTH,
            memory=mark.peak(),
            others=others,
        )


def _prompt(tracker: Tracker) -> int:
    left, top = _corner(0)
    middle = (left + _SIDE / 2, top + _SIDE / 2)
    pixels = moving_square(0)
    started = time.perf_counter_ns()
    tracker.prompt(0, pixels, Prompt(1, points=(middle,), labels=(1,)))
    return time.perf_counter_ns() - started


def _timed(tracker: Tracker, start: int, frames: int) -> tuple[int, ...]:
    durations = []
    for index in range(start, start + frames):
        pixels = moving_square(index)
        gc.collect()
        started = time.perf_counter_ns()
        tracker.track(index, pixels)
        durations.append(time.perf_counter_ns() - started)
    return tuple(durations)


def _filled(tensors: Any) -> int:
    """How many slots of the bank `propagate` read; empty ones have an age below 0."""
    return int((np.asarray(tensors["memory_age"]) >= 0).sum())


def _corner(index: int) -> tuple[int, int]:
    return (40 + _STEP * index) % (WIDTH - _SIDE), (60 + index) % (HEIGHT - _SIDE)

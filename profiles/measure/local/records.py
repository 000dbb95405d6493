"""What goes into a worker process and what comes out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from phoneward.names import Precision
from phoneward.profiles.report.schema import Memory, OpTime, Window
from phoneward.spec import Spec, TensorSpec

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]


class Setting(Spec):
    """The artifact, its engine, and the processors it gets.

    `tensors` is an `.npz` of one sample of all inputs by name.
    """

    engine: str
    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tensors: Path
    threads: Positive
    cores: tuple[Count, ...] = ()


class TimeJob(Spec):
    """Load; with `runs` also infer once, warm up, time that many, and load again."""

    task: Literal["time"] = "time"
    setting: Setting
    runs: Count
    spawned_ns: Count


class Timed(Spec):
    """Nanoseconds, as the fields of `Measured`; `others` is how many cores others kept busy."""

    process_start_ns: Positive
    cold_load_ns: Positive
    first_ns: Positive | None = None
    warmup_runs: Count = 0
    steady: bool | None = None
    samples_ns: tuple[Positive, ...] = ()
    warm_load_ns: Positive | None = None
    memory: Memory | None = None
    others: float | None = None


class OpsJob(Spec):
    """Ask the engine where its time goes, over `runs` inferences."""

    task: Literal["ops"] = "ops"
    setting: Setting
    runs: Positive


class Ops(Spec):
    """Per-op times, or why there are none."""

    ops: tuple[OpTime, ...] = ()
    reason: str | None = None


class SustainedJob(Spec):
    """Infer without a pause for so many seconds."""

    task: Literal["sustained"] = "sustained"
    setting: Setting
    seconds: Annotated[float, Field(gt=0)]


class Sustained(Spec):
    """The windows of the run."""

    windows: tuple[Window, ...]
    others: float | None = None


class FramesJob(Spec):
    """Track a made-up video end to end: `frames` timed ones with a full memory bank."""

    task: Literal["frames"] = "frames"
    bundle: Path
    engine: str
    format_name: str
    precision: Precision
    threads: Positive
    cores: tuple[Count, ...] = ()
    frames: Positive
    spawned_ns: Count


class Tracked(Spec):
    """Durations of each timed frame, and of each stage in it; `load_ns` is of all four stages."""

    process_start_ns: Positive
    load_ns: Positive
    first_ns: Positive
    warmup_runs: Count
    frames_ns: tuple[Positive, ...]
    stages_ns: dict[str, tuple[Count, ...]]
    filled_slots: Count
    slots: Count
    height: Positive
    width: Positive
    memory: Memory | None = None
    others: float | None = None


class Failure(Spec):
    """A worker's error that Phoneward raised on purpose."""

    kind: str
    error: str


Job = Annotated[TimeJob | OpsJob | SustainedJob | FramesJob, Field(discriminator="task")]

"""What a latency report holds, wherever it comes from; checked when it is made and when read."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from phoneward.bundle import Delegation, Parity, Sha256
from phoneward.names import Precision, Provenance
from phoneward.profiles.kernels import Kernel
from phoneward.spec import Spec


def _has_a_zone(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time of day needs its zone")
    return moment


# the largest number that every reader of JSON keeps exactly; in nanoseconds, 104 days
_MOST = 2**53 - 1
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0, le=_MOST)]
Positive = Annotated[int, Field(gt=0, le=_MOST)]
Nanoseconds = Annotated[FiniteFloat, Field(ge=0, le=_MOST)]
Milliseconds = Annotated[FiniteFloat, Field(ge=0, le=_MOST)]
Moment = Annotated[datetime, AfterValidator(_has_a_zone)]
# tools print means with six digits
_ROUNDING = 1e-5


class Subject(Spec):
    """What was profiled: a model of the zoo, `timm:NAME@PIXELS`, `torchvision:NAME@PIXELS`.

    `weights` says of which kind they were: a latency rarely depends on it, a parity does.
    """

    model: Text
    weights: Text | None = None


class Machine(Spec):
    """Where it ran, or which device was predicted.

    `device` is the name of a device file, if one describes this machine. `facts` are what may
    explain a time: governor, temperature, load, versions; free text.
    """

    name: Text
    device: Text | None = None
    os: Text | None = None
    cpu: Text | None = None
    architecture: Text | None = None
    cores: Positive | None = None
    memory_bytes: Positive | None = None
    facts: dict[str, str] = Field(default_factory=dict)


class OpTime(Spec):
    """Time of one op in one inference, the median over several.

    `kind` is the engine's own name for it, `module` the PyTorch module that it comes from where
    that is known, `unit` what executed it (a delegate, a processor).
    """

    name: Text
    kind: Text
    module: str | None = None
    unit: str | None = None
    median_ns: Count
    calls: Positive = 1


class Window(Spec):
    """A piece of a sustained run: `start_ns` after its beginning, and the runs in it."""

    start_ns: Count
    runs: Positive
    p50_ns: Positive
    p90_ns: Positive
    p99_ns: Positive


class Memory(Spec):
    """Peak of a process's resident memory, and what it had before the artifact was loaded.

    `source` says how it was read, e.g. `VmHWM`.
    """

    peak_bytes: Positive
    before_bytes: Count | None = None
    source: Text


class Aggregate(Spec):
    """What a tool tells of its timed inferences when it keeps their durations to itself.

    `source` names the tool. What it does not tell is None. The mean may lie outside the extremes
    by its own rounding.
    """

    source: Text
    count: Positive
    mean_ns: Nanoseconds
    min_ns: Positive | None = None
    max_ns: Positive | None = None
    std_ns: Nanoseconds | None = None
    p5_ns: Nanoseconds | None = None
    median_ns: Nanoseconds | None = None
    p95_ns: Nanoseconds | None = None

    @model_validator(mode="after")
    def _values_lie_between_the_extremes(self) -> Aggregate:
        inside = (self.min_ns, self.mean_ns, self.p5_ns, self.median_ns, self.p95_ns, self.max_ns)
        low = (self.min_ns or 0) * (1 - _ROUNDING)
        high = math.inf if self.max_ns is None else self.max_ns * (1 + _ROUNDING)
        if any(value is not None and not low <= value <= high for value in inside):
            raise ValueError("the mean and the percentiles must lie between min_ns and max_ns")
        return self


class Measured(Spec):
    """Times that a clock gave: each inference's, or where a tool hides these, an aggregate.

    Attributes:
        samples_ns: duration of each timed inference in order, copies in and out included; empty
            only if there is an `aggregate`.
        process_samples: how many of the samples each process gave, in order, where several did;
            samples of one process resemble each other, those of two differ more.
        median_interval_ns: where the median of one more process would lie, with a probability
            of 95 %, as far as these processes tell; None where there were less than three.
        aggregate: in place of the samples, where a tool gives only this.
        first_ns: duration of the first inference after loading.
        warmup_runs: inferences between the first and the timed ones.
        steady: whether they had settled when timing began; None where it was not looked at.
        cold_load_ns: from the start of loading to ready, each in a fresh process.
        warm_load_ns: the same again in a process that had loaded it before.
        process_start_ns: of the fresh processes, from their start to the start of loading.
        memory: None where it was not measured.
        ops: per-op times, in order of execution; empty where the engine gives none.
        sustained: windows of a run of minutes, in order.
    """

    provenance: Literal["measured"] = "measured"
    samples_ns: tuple[Positive, ...] = ()
    process_samples: tuple[Positive, ...] = ()
    median_interval_ns: tuple[Positive, Positive] | None = None
    aggregate: Aggregate | None = None
    first_ns: Positive | None = None
    warmup_runs: Count = 0
    steady: bool | None = None
    cold_load_ns: tuple[Positive, ...] = ()
    warm_load_ns: tuple[Positive, ...] = ()
    process_start_ns: tuple[Positive, ...] = ()
    memory: Memory | None = None
    ops: tuple[OpTime, ...] = ()
    sustained: tuple[Window, ...] = ()

    @model_validator(mode="after")
    def _has_samples_or_an_aggregate(self) -> Measured:
        if bool(self.samples_ns) == (self.aggregate is not None):
            raise ValueError("samples_ns, or where there are none an aggregate, is required")
        return self

    @model_validator(mode="after")
    def _processes_account_for_the_samples(self) -> Measured:
        if self.process_samples and sum(self.process_samples) != len(self.samples_ns):
            raise ValueError("process_samples must add up to the number of samples_ns")
        interval = self.median_interval_ns
        if interval is not None and interval[0] > interval[1]:
            raise ValueError("median_interval_ns must go from its lower end to its upper end")
        return self


class Emulated(Spec):
    """Instructions that an emulated processor retired in one inference. It tells no time.

    Attributes:
        cpu: name of the emulated core.
        instructions: all of them.
        by_class: how many of each class, e.g. `fmla`, `sdot`, `smmla`, `load`, `store`; classes
            do not overlap and may leave a rest.
        runs: inferences that were counted; `instructions` is one inference's, and `identical`
            tells whether all had the same count.
        max_relative_error: against the reference answers, of the range; None if not compared.
    """

    provenance: Literal["emulated"] = "emulated"
    cpu: Text
    instructions: Positive
    by_class: dict[str, Count]
    runs: Positive
    identical: bool
    max_relative_error: Annotated[FiniteFloat, Field(ge=0)] | None = None


class Share(Spec):
    """A part of a predicted time: the kernels of one kind, or one kernel."""

    name: Text
    kind: Text
    module: str | None = None
    latency_ms: Milliseconds


class Unpriced(Spec):
    """An op that the latency model has no price for, how often it occurs, and why."""

    op: Text
    count: Positive
    reason: Text


class Predicted(Spec):
    """A time that was computed, with the interval it lies in with probability `level`.

    Attributes:
        latency_ms: the prediction (a median).
        interval_ms: lower and upper end.
        level: probability that a measurement falls inside.
        basis: which measurements it rests on, in words.
        breakdown: parts that add up to `latency_ms`, in order of execution.
        unpriced: what is not in `latency_ms`.
        cliffs: rules about this device that changed the prediction or may spoil it, in words.
    """

    provenance: Literal["predicted"] = "predicted"
    latency_ms: Milliseconds
    interval_ms: tuple[Milliseconds, Milliseconds]
    level: Annotated[float, Field(gt=0, lt=1)] = 0.9
    basis: Text
    breakdown: tuple[Share, ...] = ()
    unpriced: tuple[Unpriced, ...] = ()
    cliffs: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _interval_holds_the_prediction(self) -> Predicted:
        low, high = self.interval_ms
        if not low <= self.latency_ms <= high:
            raise ValueError("interval_ms must go from below latency_ms to above it")
        return self


Result = Annotated[Measured | Emulated | Predicted, Field(discriminator="provenance")]


class StageReport(Spec):
    """One graph in one format and precision on one engine.

    Attributes:
        stage: its name in the bundle; `frame` for a whole frame end to end.
        format: of the artifact; None if a model without artifact was predicted.
        precision: numeric precision; None where a source does not tell.
        engine: what ran it (`litert`, `executorch`, ...), or the runtime that was predicted.
        engine_version: of the package or binary.
        delegate: what executes most of it, e.g. `XNNPACK`.
        unit: `cpu`, `gpu`, `npu`, as far as known.
        threads: how many it was given.
        pinned_cores: processors it was bound to; empty: not bound.
        artifact_sha256: of the artifact's bytes.
        artifact_bytes: its size.
        parity: verdict against PyTorch, from the bundle.
        delegation: what fell out of the delegate, from the bundle.
        kernels: the graph's work, for a roofline and for calibration; empty if not known.
        result: measured, emulated or predicted.
    """

    stage: Text
    format: Text | None = None
    precision: Precision | None = None
    engine: Text | None = None
    engine_version: Text | None = None
    delegate: Text | None = None
    unit: Text | None = None
    threads: Positive | None = None
    pinned_cores: tuple[Count, ...] = ()
    artifact_sha256: Sha256 | None = None
    artifact_bytes: Positive | None = None
    parity: Parity | None = None
    delegation: Delegation | None = None
    kernels: tuple[Kernel, ...] = ()
    result: Result


class LatencyReport(Spec):
    """How fast a model is, where, and how that is known. All of it has one provenance.

    Attributes:
        provenance: `measured`, `emulated` or `predicted`.
        created: when.
        phoneward: version that wrote it.
        place: as it was asked for: `host`, `ssh://pi@board`, `adb:SERIAL`, `qemu:cortex-a76`;
            for predictions `predicted`.
        subject: what was profiled.
        machine: where.
        tools: versions of packages and binaries that took part.
        stages: in the order in which the model runs them.
        end_to_end: a whole frame of a model of several stages, the host's work included.
        warnings: what may spoil the figures, for a reader.
    """

    kind: Literal["latency"] = "latency"
    schema_version: Literal[1] = 1
    provenance: Provenance
    created: Moment
    phoneward: Text
    place: Text
    subject: Subject
    machine: Machine
    tools: dict[str, str] = Field(default_factory=dict)
    stages: Annotated[tuple[StageReport, ...], Field(min_length=1)]
    end_to_end: StageReport | None = None
    warnings: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_one_provenance(self) -> LatencyReport:
        all_of_it = (*self.stages, *([self.end_to_end] if self.end_to_end else ()))
        for stage in all_of_it:
            if stage.result.provenance != self.provenance.value:
                raise ValueError(
                    f"stage '{stage.stage}' is {stage.result.provenance}, the report says "
                    f"{self.provenance}"
                )
        return self

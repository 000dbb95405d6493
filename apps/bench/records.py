"""What the benchmark's processes tell each other, and what its pages are made of."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field

from phoneward.bundle import Delegation
from phoneward.spec import Spec, TensorSpec

Variant = Literal["ours", "naive"]
EAGER = "pytorch"


class Subject(Spec):
    """One thing that is timed: a model's artifact of ours or the naive one, on one engine.

    The engine `pytorch` is the plain timm model run eagerly; it only exists as `naive`.
    """

    model: str
    engine: str
    variant: Variant

    def __str__(self) -> str:
        """Return the name used in progress lines and file names."""
        return f"{self.model} {self.engine} {self.variant}"


class ConvertJob(Spec):
    """Make one fp32 artifact with random weights in `folder`."""

    model: str
    format: str
    variant: Variant
    folder: str
    threads: int


class Conversion(Spec):
    """A converted file; paths are relative to the folder of its job.

    `seconds` is the time of the converter with its packages already imported; for ours it
    includes rewriting and the parity run on the reference inputs.
    """

    model: str
    format: str
    variant: Variant
    path: str
    seconds: float
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    delegation: Delegation | None = None


class Failure(Spec):
    """A conversion or measurement that did not come about, with the first line of its error."""

    model: str
    format: str
    variant: Variant
    error: str


class TimeJob(Spec):
    """Time one artifact: absolute paths, number of runs, and where to put the first output.

    `path` is None for the engine `pytorch`, which builds `subject.model` instead.
    """

    subject: Subject
    path: str | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tensor: str
    answer: str
    runs: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]


class Timing(Spec):
    """Raw samples of one process in nanoseconds, and how it got warm.

    `steady` says that the last warm-up windows agreed; `warmup` counts the runs before the samples.
    """

    load_ns: int
    first_ns: int
    warmup: int
    steady: bool
    samples_ns: tuple[int, ...]


class Measurement(Spec):
    """One process's timing of one subject in one round (counted from 0)."""

    subject: Subject
    round: int
    timing: Timing


class Agreement(Spec):
    """How far our answer to a photograph is from the naive file's and from PyTorch's.

    Relative errors are over the range of the other's output; `naive_*` is None where there is
    no naive file.
    """

    model: str
    engine: str
    naive_max_abs: float | None
    naive_relative: float | None
    torch_max_abs: float
    torch_relative: float


class OpTime(Spec):
    """All operators of one kind: their count, and milliseconds a run (None: unknown)."""

    name: str
    count: int
    milliseconds: float | None


class Profile(Spec):
    """Where an artifact's time goes, the costliest kind of operator first.

    `outside` counts, by name, the operators that the engine's delegate left to slower kernels;
    None says that the engine has no delegate.
    """

    model: str
    engine: str
    ops: tuple[OpTime, ...]
    outside: dict[str, int] | None = None


class Machine(Spec):
    """Where and with what the figures were taken."""

    cpu: str
    cores: int
    system: str
    versions: dict[str, str]


class Measured(Spec):
    """What every benchmark's results begin with: where, when and with what command."""

    schema_version: Literal[1] = 1
    provenance: Literal["measured"] = "measured"
    machine: Machine
    date: str
    command: str


class Results(Measured):
    """All of a benchmark: the content of the JSON file beside the page."""

    rounds: int
    runs: int
    threads: int
    conversions: tuple[Conversion, ...]
    failures: tuple[Failure, ...]
    measurements: tuple[Measurement, ...]
    agreements: tuple[Agreement, ...]
    profiles: tuple[Profile, ...] = ()


def to_json(results: Spec) -> str:
    """The results as JSON with one record a line, so that differences can be read."""
    lines = []
    for key, value in results.model_dump(mode="json").items():
        if isinstance(value, list) and value:
            items = ",\n".join("  " + json.dumps(item) for item in value)
            lines.append(f"{json.dumps(key)}: [\n{items}\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"

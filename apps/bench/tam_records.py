"""What the processes of EfficientTAM's benchmark tell each other, and what its page is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from phoneward.apps.bench.records import Measured
from phoneward.bundle import Delegation
from phoneward.export.models.family import Knobs
from phoneward.spec import Spec, TensorSpec

Bank = Literal["exact", "pooled"]
Form = Literal["plain", "rewritten"]
MATMUL = "torch.mm"
PROMPT = "prompt"
ATTENDS = ("attend_projected", "attend_given")
"""One cross-attention with its keys projected, and with all keys given (`tam_keys`)."""
FRAME = ("encode", "propagate", "memorize")
"""The stages of a tracked frame, in the order in which a host runs them."""


def knobs_of(bank: Bank) -> Knobs:
    """The model's own memory, or the one whose keys are averaged 2 x 2."""
    return Knobs(pooled_memory=bank == "pooled")


class StageSubject(Spec):
    """One thing that is timed: all stages on one engine, or the machine's matrix product.

    `plain` stages are as the family builds them, before any rewrite; the engine `pytorch` runs
    only those, eagerly.
    """

    bank: Bank
    engine: str
    form: Form

    def __str__(self) -> str:
        """Return the name used in progress lines and file names."""
        return f"{self.bank} {self.engine} {self.form}"


class PrepareJob(Spec):
    """Make the inputs of the stages, PyTorch's answers and the operation counts in `folder`."""

    model: str
    bank: Bank
    folder: str


class Work(Spec):
    """Floating-point operations of one call of a stage; `format` is None for plain stages.

    Counted are products of matrices and convolutions, a multiplication and an addition as two.
    """

    bank: Bank
    stage: str
    format: str | None
    operations: int


class Prepared(Spec):
    """What `PrepareJob` made besides its files."""

    work: tuple[Work, ...]


class ConvertStages(Spec):
    """Convert stages to one fp32 format in `folder`, with random weights.

    Rewritten stages are made all together, as `phoneward export` makes them.
    """

    model: str
    stages: tuple[str, ...]
    bank: Bank
    form: Form
    format: str
    folder: str
    threads: int


class StageFile(Spec):
    """A converted stage; the path is relative to the folder of its job.

    `seconds` is the time of the converter with its packages already imported; for rewritten
    stages it includes rewriting and the parity run on the reference inputs.
    """

    stage: str
    path: str
    seconds: float
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    delegation: Delegation | None = None


class StageSet(Spec):
    """Stages of one format."""

    bank: Bank
    form: Form
    format: str
    files: tuple[StageFile, ...]


class StageFailure(Spec):
    """A conversion or measurement that did not come about, with the first line of its error."""

    subject: StageSubject
    error: str


class TimeStages(Spec):
    """Time the stages of one subject: paths are absolute, `files` is empty for PyTorch.

    `tensors` are the inputs (`.npz`, `<stage>/<tensor>`), `answer` is where the first outputs go.
    """

    model: str
    subject: StageSubject
    files: tuple[StageFile, ...]
    tensors: str
    answer: str
    runs: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]


class StageTiming(Spec):
    """Raw samples of one process in nanoseconds by stage; those of a frame belong together."""

    samples_ns: dict[str, tuple[int, ...]]


class StageMeasurement(Spec):
    """One process's timing in one round (counted from 0).

    `others` is how many cores other processes kept busy meanwhile (None: unknown), `tries` how
    often it was taken until that was little.
    """

    subject: StageSubject
    round: int
    timing: StageTiming
    others: float | None
    tries: int


class StageAgreement(Spec):
    """The largest error of a subject against eager PyTorch, over the range of an output."""

    subject: StageSubject
    relative: float
    where: str


class TamResults(Measured):
    """All of the benchmark: the content of the JSON file beside the page."""

    model: str
    rounds: int
    runs: int
    threads: int
    work: tuple[Work, ...]
    sets: tuple[StageSet, ...]
    failures: tuple[StageFailure, ...]
    measurements: tuple[StageMeasurement, ...]
    agreements: tuple[StageAgreement, ...]

"""What the processes of this benchmark tell each other, and what its page is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from phoneward.apps.bench.records import Measured
from phoneward.export.train.cbnet.record import Record
from phoneward.names import Precision
from phoneward.profiles.energy.schema import Energy, MeasuredEnergy
from phoneward.spec import Spec

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class System(Spec):
    """A way to classify the images of a data set: a network, its weights, its precision.

    `name` is what the page calls it, `model` a name of the zoo. `published` ones are the paper's;
    the others were searched for. `multiply_adds` are of one image; of a network with an exit,
    those until the exit and those after it.
    """

    data: str
    name: str
    model: str
    weights: str
    precision: Precision = Precision.FP32
    published: bool = False
    multiply_adds: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Return the key of tables and files."""
        return f"{self.data} {self.name}"


class Case(Spec):
    """A system as a bundle: `batch` is what its graphs take at a time; paths are absolute."""

    system: System
    batch: Positive
    bundle: str
    images: str


class TimeJob(Spec):
    """Time cases on one engine in turns; a turn of a case classifies the same `images`."""

    engine: str
    cases: tuple[Case, ...]
    turns: Positive
    images: Positive
    threads: Positive


class CaseTime(Spec):
    """Nanoseconds an image: the mean of each turn of a case."""

    mean_ns: tuple[Positive, ...]


class Times(Spec):
    """One process's times, in the order of its cases; `others` is how many cores others used."""

    times: tuple[CaseTime, ...]
    others: float | None


class JudgeJob(Spec):
    """Classify all images of each case on one engine."""

    engine: str
    cases: tuple[Case, ...]
    threads: Positive


class Judgement(Spec):
    """Shares of the images: classified right, and left at the exit (None: there is none)."""

    accuracy: Share
    exit_rate: Share | None = None


class Judgements(Spec):
    """One for each case, in their order."""

    judgements: tuple[Judgement, ...]


class Round(Spec):
    """One process of one engine in one round (counted from 0)."""

    engine: str
    round: int
    times: Times


class Accuracy(Spec):
    """What a system's artifacts get right on an engine, of a training by its seed.

    `on` is the whole test set, or the half of the held-out training images that choices are made
    with; the other half is for exit entropies.
    """

    system: System
    engine: str
    seed: int
    on: Literal["test", "held out"]
    judgement: Judgement


class EnergyRow(Spec):
    """Energy of an image classified by a system, one image at a time, on an engine."""

    system: System
    engine: str
    energy: Energy


class CountJob(Spec):
    """Count the energy of cases of one image at a time on one engine, over `images` images."""

    engine: str
    counter: str
    cases: tuple[Case, ...]
    images: Positive
    threads: Positive


class Counted(Spec):
    """One for each case, in their order."""

    energies: tuple[MeasuredEnergy, ...]


class Results(Measured):
    """All of the benchmark: the content of the JSON file beside the page."""

    threads: int
    turns: int
    images: int
    batch: int
    trainings: tuple[Record, ...]
    cases: tuple[Case, ...]
    rounds: tuple[Round, ...]
    accuracies: tuple[Accuracy, ...]
    energies: tuple[EnergyRow, ...]
    counters: dict[str, str | None]
    failures: tuple[str, ...] = ()

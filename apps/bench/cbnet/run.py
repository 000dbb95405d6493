"""From data sets to results: train, export, judge, time in turns, count energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import numpy as np

from phoneward.apps.bench.bystanders import quiet
from phoneward.apps.bench.cbnet.energy import energy_rows, why_not
from phoneward.apps.bench.cbnet.records import (
    Accuracy,
    Case,
    Counted,
    CountJob,
    EnergyRow,
    JudgeJob,
    Judgements,
    Results,
    Round,
    System,
    TimeJob,
    Times,
)
from phoneward.apps.bench.cbnet.systems import Search, published, second_half
from phoneward.apps.bench.child import ChildError, run_child
from phoneward.apps.bench.machine import this_machine
from phoneward.errors import DataError
from phoneward.export.pipeline import GateFailed, Options, export_bundle
from phoneward.export.request import make_request
from phoneward.export.train.cbnet.pictures import conversions, draw
from phoneward.export.train.cbnet.plan import plan_for
from phoneward.export.train.cbnet.record import Record
from phoneward.export.train.cbnet.run import run
from phoneward.export.train.cbnet.training import Training
from phoneward.export.train.data import open_dataset
from phoneward.export.train.data.dataset import Dataset, Split
from phoneward.names import ParityStatus

FORMATS = {"litert": "tflite", "executorch": "executorch", "onnxruntime": "onnx"}
JUDGE_ENGINE = "litert"
_SHUFFLE_SEED = 0
On = Literal["test", "held out"]
TEST: On = "test"
HELD_OUT: On = "held out"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """What to measure, and how often."""

    data: tuple[Dataset, ...]
    seeds: int
    rounds: int
    turns: int
    images: int
    batch: int
    threads: int
    work: Path
    lock: Path | None


@dataclass
class Bench:
    """The benchmark under way."""

    plan: Plan
    progress: Progress
    trainings: list[Record] = field(default_factory=list)
    systems: dict[tuple[str, int], list[System]] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    accuracies: list[Accuracy] = field(default_factory=list)
    counters: dict[str, str | None] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    counted: list[EnergyRow] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def train(self) -> None:
        """Train what is not yet in the work folder; all that is searched is of the first seed."""
        for dataset in self.plan.data:
            for seed in range(self.plan.seeds):
                folder = self.plan.work / "training" / f"{dataset.name}-{seed}"
                plan = plan_for(dataset, seed=seed, hybrid=seed == 0)
                self.trainings.append(run(dataset, plan, folder, self.progress))
                systems = published(folder, dataset.name)
                if seed == 0:
                    training = Training(dataset, plan, folder, self.progress)
                    systems += Search(training).systems()
                    self._write_images(second_half(training.held_out), dataset.name, HELD_OUT)
                self.systems[dataset.name, seed] = systems
            self._write_images(dataset.test, dataset.name, TEST)

    def export(self) -> None:
        """Export every system, and classify the test sets and the held-out images with it.

        Those of the first seed in all formats, on all engines; of the others in one. A system of
        which an artifact misses the gate is left out, and its failure kept.
        """
        for (_, seed), systems in self.systems.items():
            engines = tuple(FORMATS) if seed == 0 else (JUDGE_ENGINE,)
            formats = tuple(FORMATS[engine] for engine in engines)
            batches = (1, self.plan.batch) if seed == 0 else (self.plan.batch,)
            made = [row for one in systems if (row := self._cases(one, batches, formats))]
            batched = [row[-1] for row in made]
            for engine in engines:
                self._judge(batched, engine, seed, TEST)
                if seed == 0:
                    self._judge(batched, engine, seed, HELD_OUT)
            if seed == 0:
                self.cases += [case for row in made for case in row]

    def measure(self) -> None:
        """Time every case on every engine, one process an engine and round."""
        total = self.plan.rounds * len(FORMATS)
        for number in range(self.plan.rounds):
            engines = list(FORMATS)
            for index, engine in enumerate(reversed(engines) if number % 2 else engines):
                step = number * len(engines) + index
                self.progress(f"round {number + 1}: {engine}", step, total)
                job = TimeJob(
                    engine=engine,
                    cases=tuple(self.cases),
                    turns=self.plan.turns,
                    images=self.plan.images,
                    threads=self.plan.threads,
                )
                scratch = self.plan.work / "timing" / f"{engine}-{number}"
                with quiet(self.plan.lock):
                    times = run_child("cbnet.timing", job, Times, scratch)
                self.rounds.append(Round(engine=engine, round=number, times=times))

    def count(self) -> None:
        """Count energy with each counter that this machine has; on most there is none."""
        singles = tuple(case for case in self.cases if case.batch == 1 and case.system.published)
        self.counters = why_not()
        for counter in [name for name, reason in self.counters.items() if reason is None]:
            for engine in FORMATS:
                self.progress(f"energy by {counter}: {engine}", 0, 1)
                job = CountJob(
                    engine=engine,
                    counter=counter,
                    cases=singles,
                    images=self.plan.images,
                    threads=self.plan.threads,
                )
                scratch = self.plan.work / "counting" / f"{counter}-{engine}"
                try:
                    with quiet(self.plan.lock):
                        found = run_child("cbnet.counting", job, Counted, scratch)
                except ChildError as error:
                    self.counters[counter] = f"{engine}: {error}"
                    continue
                self.counted += [
                    EnergyRow(system=_placeless(case.system), engine=engine, energy=energy)
                    for case, energy in zip(singles, found.energies, strict=True)
                ]

    def results(self, command: str) -> Results:
        """Gather everything."""
        machine = this_machine()
        busy = min(1.0, self.plan.threads / machine.cores)
        return Results(
            machine=machine,
            date=datetime.now(timezone.utc).date().isoformat(),
            command=command,
            threads=self.plan.threads,
            turns=self.plan.turns,
            images=self.plan.images,
            batch=self.plan.batch,
            trainings=tuple(self.trainings),
            cases=tuple(_placeless_case(case) for case in self.cases),
            rounds=tuple(self.rounds),
            accuracies=tuple(
                one.model_copy(update={"system": _placeless(one.system)}) for one in self.accuracies
            ),
            energies=(*energy_rows(self.cases, self.rounds, _placeless, busy), *self.counted),
            counters=self.counters,
            failures=tuple(self.failures),
        )

    def write_pictures(self, output: Path) -> list[str]:
        """Draw what the first training of each data set converts; returns the files' names."""
        names = []
        for dataset in self.plan.data:
            folder = self.plan.work / "training" / f"{dataset.name}-0"
            file = output.with_name(f"{output.stem}-{dataset.name}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            draw(conversions(dataset.test, folder), file)
            names.append(file.name)
        return names

    def _write_images(self, split: Split, data: str, on: On) -> None:
        """Write images, shuffled so that every slice is like the whole."""
        order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(split))
        file = self._images(data, on)
        file.parent.mkdir(parents=True, exist_ok=True)
        shuffled = split.take(order)
        np.savez(file, images=shuffled.images, classes=shuffled.classes)

    def _images(self, data: str, on: On) -> Path:
        return (self.plan.work / "images" / f"{data} {on}.npz").absolute()

    def _judge(self, cases: Sequence[Case], engine: str, seed: int, on: On) -> None:
        systems = [case.system for case in cases]
        images = str(self._images(systems[0].data, on))
        job = JudgeJob(
            engine=engine,
            cases=tuple(case.model_copy(update={"images": images}) for case in cases),
            threads=self.plan.threads,
        )
        self.progress(f"{on} images of {systems[0].data}, seed {seed}, {engine}", 1, 1)
        found = run_child("cbnet.judging", job, Judgements, self.plan.work / "judging" / "job")
        self.accuracies += [
            Accuracy(system=system, engine=engine, seed=seed, on=on, judgement=judgement)
            for system, judgement in zip(systems, found.judgements, strict=True)
        ]

    def _cases(
        self, system: System, batches: Sequence[int], formats: tuple[str, ...]
    ) -> list[Case]:
        try:
            return [self._case(system, batch, formats) for batch in batches]
        except GateFailed as failure:
            reasons = [
                f"{one.format} {one.parity.reason}"
                for one in failure.artifacts
                if one.parity.status is ParityStatus.FAILED
            ]
            self.failures.append(f"{system}: {'; '.join(reasons)}")
            return []

    def _case(self, system: System, batch: int, formats: tuple[str, ...]) -> Case:
        """Export a system; the cache makes it short where nothing has changed."""
        self.progress(f"export {system}, {batch} at a time: {', '.join(formats)}", 1, 1)
        weights = Path(system.weights)
        place = "-".join((weights.parent.name, system.name, f"b{batch}", *formats))
        folder = self.plan.work / "bundles" / place.replace(" ", "_")
        request = make_request(
            system.model, system.weights, (), formats, [system.precision], batch=batch
        )
        export_bundle(request, folder, Options(force=True))
        images = str(self._images(system.data, TEST))
        return Case(system=system, batch=batch, bundle=str(folder.absolute()), images=images)


def open_datasets(names: Sequence[str]) -> tuple[Dataset, ...]:
    """Open all data sets before hours are spent on the first.

    Raises:
        DataError: one is not there, or two have the same name.
    """
    found = tuple(map(open_dataset, names))
    for index, one in enumerate(found):
        if one.name in [other.name for other in found[:index]]:
            raise DataError(names[index], f"a second data set called {one.name}")
    return found


def _placeless(system: System) -> System:
    """A page has no use for folders of the machine it was made on."""
    return system.model_copy(update={"weights": Path(system.weights).name})


def _placeless_case(case: Case) -> Case:
    system = _placeless(case.system)
    return case.model_copy(update={"system": system, "bundle": "", "images": ""})

"""From data sets to results: train, export, judge, time in turns, count energy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from phoneward.apps.bench.bystanders import quiet
from phoneward.apps.bench.cbnet.energy import energy_rows, why_not
from phoneward.apps.bench.cbnet.records import (
    Accuracy,
    Case,
    Counted,
    CountJob,
    EnergyRow,
    HeldOut,
    JudgeJob,
    Judgements,
    Results,
    Round,
    System,
    TimeJob,
    Times,
)
from phoneward.apps.bench.cbnet.systems import Search, held_out, published
from phoneward.apps.bench.child import run_child
from phoneward.apps.bench.machine import this_machine
from phoneward.export.pipeline import Options, export_bundle
from phoneward.export.request import make_request
from phoneward.export.train.cbnet.pictures import conversions, draw
from phoneward.export.train.cbnet.plan import plan_for
from phoneward.export.train.cbnet.record import Record
from phoneward.export.train.cbnet.run import run
from phoneward.export.train.cbnet.training import Training
from phoneward.export.train.data import open_dataset
from phoneward.export.train.data.dataset import Dataset

FORMATS = {"litert": "tflite", "executorch": "executorch", "onnxruntime": "onnx"}
JUDGE_ENGINE = "litert"
_SHUFFLE_SEED = 0

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """What to measure, and how often."""

    data: tuple[str, ...]
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
    judged_by_choice: list[HeldOut] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    counted: list[EnergyRow] = field(default_factory=list)

    def train(self) -> None:
        """Train what is not yet in the work folder; all that is searched is of the first seed."""
        for data in self.plan.data:
            dataset = open_dataset(data)
            for seed in range(self.plan.seeds):
                folder = self.plan.work / "training" / f"{dataset.name}-{seed}"
                plan = plan_for(dataset, seed=seed, hybrid=seed == 0)
                self.trainings.append(run(dataset, plan, folder, self.progress))
                systems = published(folder, dataset.name)
                if seed == 0:
                    training = Training(dataset, plan, folder, self.progress)
                    systems += Search(training).systems()
                    self.judged_by_choice += [held_out(one, training) for one in systems]
                self.systems[dataset.name, seed] = systems

    def export(self) -> None:
        """Export every system, and classify the whole test sets with it."""
        for data in self.plan.data:
            dataset = open_dataset(data)
            images = self._test_images(dataset)
            for seed in range(self.plan.seeds):
                systems = self.systems[dataset.name, seed]
                self._judge(systems, seed, images)
                if seed == 0:
                    self.cases += self._timed_cases(systems, images)

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
        for counter in (name for name, reason in why_not().items() if reason is None):
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
                found = run_child("cbnet.counting", job, Counted, scratch)
                self.counted += [
                    EnergyRow(system=_placeless(case.system), engine=engine, energy=energy)
                    for case, energy in zip(singles, found.energies, strict=True)
                ]

    def results(self, command: str) -> Results:
        """Gather everything."""
        return Results(
            machine=this_machine(),
            date=datetime.now(timezone.utc).date().isoformat(),
            command=command,
            threads=self.plan.threads,
            turns=self.plan.turns,
            images=self.plan.images,
            batch=self.plan.batch,
            trainings=tuple(self.trainings),
            cases=tuple(case.model_copy(update=_NOWHERE) for case in map(_anonymous, self.cases)),
            rounds=tuple(self.rounds),
            accuracies=tuple(
                one.model_copy(update={"system": _placeless(one.system)}) for one in self.accuracies
            ),
            held_out=tuple(
                one.model_copy(update={"system": _placeless(one.system)})
                for one in self.judged_by_choice
            ),
            energies=(*energy_rows(self.cases, self.rounds, _placeless), *self.counted),
            counters=why_not(),
        )

    def write_pictures(self, output: Path) -> list[str]:
        """Draw what the first training of each data set converts; returns the files' names."""
        names = []
        for data in self.plan.data:
            dataset = open_dataset(data)
            folder = self.plan.work / "training" / f"{dataset.name}-0"
            file = output.with_name(f"{output.stem}-{dataset.name}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            draw(conversions(dataset.test, folder), file)
            names.append(file.name)
        return names

    def _test_images(self, dataset: Dataset) -> Path:
        """Write the test images, shuffled so that every slice is like the whole."""
        order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(dataset.test))
        file = (self.plan.work / "images" / f"{dataset.name}.npz").absolute()
        file.parent.mkdir(parents=True, exist_ok=True)
        split = dataset.test.take(order)
        np.savez(file, images=split.images, classes=split.classes)
        return file

    def _judge(self, systems: Sequence[System], seed: int, images: Path) -> None:
        cases = tuple(
            self._case(system, self.plan.batch, (FORMATS[JUDGE_ENGINE],), images)
            for system in systems
        )
        job = JudgeJob(engine=JUDGE_ENGINE, cases=cases, threads=self.plan.threads)
        self.progress(f"test set of {systems[0].data}, seed {seed}", 0, 1)
        found = run_child("cbnet.judging", job, Judgements, self.plan.work / "judging" / "job")
        self.accuracies += [
            Accuracy(system=system, seed=seed, judgement=judgement)
            for system, judgement in zip(systems, found.judgements, strict=True)
        ]

    def _timed_cases(self, systems: Sequence[System], images: Path) -> list[Case]:
        formats = tuple(FORMATS.values())
        return [
            self._case(system, batch, formats, images)
            for system in systems
            for batch in (1, self.plan.batch)
        ]

    def _case(self, system: System, batch: int, formats: Iterable[str], images: Path) -> Case:
        """Export a system; the cache makes it short where nothing has changed."""
        formats = tuple(formats)
        self.progress(f"export {system}, {batch} at a time: {', '.join(formats)}", 1, 1)
        place = "-".join((Path(system.weights).parent.name, system.name, f"b{batch}", *formats))
        folder = self.plan.work / "bundles" / place.replace(" ", "_")
        request = make_request(
            system.model, system.weights, (), formats, [system.precision], batch=batch
        )
        export_bundle(request, folder, Options(force=True))
        return Case(system=system, batch=batch, bundle=str(folder.absolute()), images=str(images))


_NOWHERE = {"bundle": "", "images": ""}


def _placeless(system: System) -> System:
    """A page has no use for folders of the machine it was made on."""
    return system.model_copy(update={"weights": Path(system.weights).name})


def _anonymous(case: Case) -> Case:
    return case.model_copy(update={"system": _placeless(case.system)})

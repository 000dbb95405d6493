"""EfficientTAM's benchmark from conversions to results."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from phoneward.apps.bench.bystanders import quiet, with_bystanders
from phoneward.apps.bench.child import ChildError, kept, run_child
from phoneward.apps.bench.machine import DISTRIBUTIONS, this_machine
from phoneward.apps.bench.records import EAGER
from phoneward.apps.bench.run import Progress
from phoneward.apps.bench.tam_prepare import ANSWERS, TENSORS
from phoneward.apps.bench.tam_records import (
    ATTENDS,
    FRAME,
    MATMUL,
    Bank,
    ConvertStages,
    Form,
    Prepared,
    PrepareJob,
    StageAgreement,
    StageFailure,
    StageFile,
    StageMeasurement,
    StageSet,
    StageSubject,
    StageTiming,
    TamResults,
    TimeStages,
    knobs_of,
)
from phoneward.apps.bench.turns import held, schedule, take_turns
from phoneward.export.cache import key_of, versions
from phoneward.export.models import find
from phoneward.profiles.measure.local.noise import CALM
from phoneward.runtime.engines import format_of
from phoneward.runtime.parity import compare

TIMED = ("litert", "executorch", "onnxruntime")
BANKS: tuple[Bank, ...] = ("exact", "pooled")
_TRIES = 3
# what decides what is in the work folder, besides the export
_CODE = ("tam_prepare.py", "tam_convert.py", "tam_keys.py")


@dataclass(frozen=True)
class StagePlan:
    """What to measure, and how often."""

    model: str
    banks: tuple[Bank, ...]
    engines: tuple[str, ...]
    rounds: int
    runs: int
    threads: int
    lock: Path | None


@dataclass(frozen=True)
class StageShop:
    """The work folder: converted stages, kept so that a second benchmark only times."""

    root: Path
    plan: StagePlan

    def prepare(self, bank: Bank) -> Prepared:
        """Make inputs and PyTorch's answers, unless that is done already; raises `ChildError`."""
        folder = self._folder(bank, "inputs")
        job = PrepareJob(model=self.plan.model, bank=bank, folder=str(folder))
        return kept("tam_prepare", job, Prepared, folder, f"{bank}-inputs-*")

    def bundle(self, subject: StageSubject) -> Path:
        """The bundle with a subject's rewritten stages; raises `ChildError`."""
        names = tuple(stage.name for stage in find(self.plan.model)[0].stages)
        (first, *_) = self.convert(subject, names).files
        return Path(first.path).parents[1]

    def convert(self, subject: StageSubject, stages: tuple[str, ...]) -> StageSet:
        """Convert stages unless that is done already; raises `ChildError`."""
        format_name = format_of(subject.engine)
        what = f"{format_name}-{subject.form}-{stages[0]}"
        folder = self._folder(subject.bank, what)
        job = ConvertStages(
            model=self.plan.model,
            stages=stages,
            bank=subject.bank,
            form=subject.form,
            format=format_name,
            folder=str(folder),
            threads=self.plan.threads,
        )
        made = kept("tam_convert", job, StageSet, folder, f"{subject.bank}-{what}-*")
        files = [f.model_copy(update={"path": str(folder / f.path)}) for f in made.files]
        return made.model_copy(update={"files": tuple(files)})

    def time(self, subject: StageSubject, files: Sequence[StageFile]) -> StageTiming:
        """Time a subject in a child process; raises `ChildError`."""
        job = TimeStages(
            model=self.plan.model,
            subject=subject,
            files=tuple(files),
            tensors=str(self._folder(subject.bank, "inputs") / TENSORS),
            answer=str(self._answer(subject)),
            runs=self.plan.runs,
            threads=self.plan.threads,
        )
        return run_child("tam_worker", job, StageTiming, self._scratch(subject))

    def agreement(self, subject: StageSubject) -> StageAgreement:
        """Compare what the last timing of a subject answered with PyTorch's answers."""
        errors = {}
        with (
            np.load(self._folder(subject.bank, "inputs") / ANSWERS) as truth,
            np.load(self._answer(subject)) as given,
        ):
            for name in given.files:
                errors[name] = compare(name, truth[name], given[name]).relative_error
        where = max(errors, key=lambda name: errors[name])
        return StageAgreement(subject=subject, relative=errors[where], where=where)

    def _scratch(self, subject: StageSubject) -> Path:
        return self.root / "runs" / f"{self.plan.model}-{str(subject).replace(' ', '-')}"

    def _answer(self, subject: StageSubject) -> Path:
        return self._scratch(subject).with_suffix(".npz")

    def _folder(self, bank: Bank, what: str) -> Path:
        return self.root / self.plan.model / f"{bank}-{what}-{_state(self.plan.model, bank)}"


@cache
def _state(model: str, bank: Bank) -> str:
    """What decides the files of a bank, as it was when the process first asked."""
    card, family = find(model)
    code = [(resources.files("phoneward.apps.bench") / file).read_text() for file in _CODE]
    parts = {
        "card": family.configure(card, knobs_of(bank)),
        "tools": versions(DISTRIBUTIONS),
        "made by": code,
    }
    return key_of(parts)[:12]


@dataclass
class StageBench:
    """One benchmark under way: what was made and measured so far."""

    plan: StagePlan
    shop: StageShop
    progress: Progress
    prepared: list[Prepared] = field(default_factory=list)
    sets: dict[StageSubject, StageSet] = field(default_factory=dict)
    failures: list[StageFailure] = field(default_factory=list)
    measurements: list[StageMeasurement] = field(default_factory=list)

    def convert(self) -> list[StageSubject]:
        """Make every file that can be made; returns what there is to time."""
        for bank in self.plan.banks:
            with held(self.plan.lock, exclusive=False):
                self.prepared.append(self.shop.prepare(bank))
        ready = []
        wanted = self._wanted()
        for number, subject in enumerate(wanted, start=1):
            self.progress(f"convert {subject}", number, len(wanted))
            if subject.engine in (EAGER, MATMUL) or self._convert(subject):
                ready.append(subject)
        return ready

    def measure(self, subjects: Sequence[StageSubject]) -> None:
        """Take turns over all rounds; what cannot be run once is not tried again."""
        total, count = len(subjects) * self.plan.rounds, itertools.count(1)
        given_up: set[StageSubject] = set()

        def one(number: int, subject: StageSubject) -> None:
            self.progress(f"round {number + 1}: {subject}", next(count), total)
            if subject in given_up:
                return
            try:
                self.measurements.append(self._calm(number, subject))
            except ChildError as error:
                given_up.add(subject)
                self._fail(subject, f"round {number + 1}: {error}")

        groups = schedule(subjects, self.plan.rounds, lambda subject: subject.bank)
        # a group takes too long to keep others from the machine: each turn takes the lock
        take_turns(groups, one, None)

    def results(self, command: str) -> TamResults:
        """Gather everything."""
        subjects = dict.fromkeys(m.subject for m in self.measurements)
        converted = [s for s in subjects if s.engine not in (EAGER, MATMUL)]
        sets = []
        for made in self.sets.values():
            files = [f.model_copy(update={"path": Path(f.path).name}) for f in made.files]
            sets.append(made.model_copy(update={"files": tuple(files)}))
        return TamResults(
            machine=this_machine(),
            date=datetime.now(timezone.utc).date().isoformat(),
            command=command,
            model=self.plan.model,
            rounds=self.plan.rounds,
            runs=self.plan.runs,
            threads=self.plan.threads,
            work=tuple(work for prepared in self.prepared for work in prepared.work),
            sets=tuple(sets),
            failures=tuple(self.failures),
            measurements=tuple(self.measurements),
            agreements=tuple(self.shop.agreement(subject) for subject in converted),
        )

    def _wanted(self) -> list[StageSubject]:
        """For each bank: the machine, eager PyTorch, ours; plain files of the exact model only."""
        wanted = []
        for bank in self.plan.banks:
            forms: tuple[Form, ...] = ("rewritten", "plain") if bank == "exact" else ("rewritten",)
            wanted += [StageSubject(bank=bank, engine=e, form="plain") for e in (MATMUL, EAGER)]
            wanted += [
                StageSubject(bank=bank, engine=engine, form=form)
                for engine in self.plan.engines
                for form in forms
            ]
        return wanted

    def _convert(self, subject: StageSubject) -> bool:
        """Rewritten stages succeed or fail as one; of others those count that succeed."""
        names = tuple(stage.name for stage in find(self.plan.model)[0].stages)
        portions: list[tuple[str, ...]]
        portions = [names] if subject.form == "rewritten" else [(name,) for name in FRAME]
        if (subject.bank, subject.form) == ("exact", "rewritten"):
            portions.append(ATTENDS)
        made = []
        for portion in portions:
            try:
                with held(self.plan.lock, exclusive=False):
                    made.append(self.shop.convert(subject, portion))
            except ChildError as error:
                self._fail(subject, f"{', '.join(portion)}: {error}")
        if made:
            files = tuple(file for one in made for file in one.files)
            self.sets[subject] = made[0].model_copy(update={"files": files})
        return bool(made)

    def _calm(self, number: int, subject: StageSubject) -> StageMeasurement:
        """Time when others leave the machine alone, or keep the calmest try."""
        files = self.sets[subject].files if subject in self.sets else ()
        tried: list[StageMeasurement] = []
        while len(tried) < _TRIES:
            with quiet(self.plan.lock):
                timing, others = with_bystanders(lambda: self.shop.time(subject, files))
            taken = StageMeasurement(
                subject=subject, round=number, timing=timing, others=others, tries=len(tried) + 1
            )
            tried.append(taken)
            if others is None or others <= CALM:
                return taken
        calmest = min(tried, key=lambda taken: taken.others or 0.0)
        return calmest.model_copy(update={"tries": len(tried)})

    def _fail(self, subject: StageSubject, error: str) -> None:
        self.failures.append(StageFailure(subject=subject, error=error))

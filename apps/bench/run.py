"""One benchmark from conversions to results."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from phoneward.apps.bench.child import ChildError
from phoneward.apps.bench.machine import this_machine
from phoneward.apps.bench.page import missed
from phoneward.apps.bench.records import (
    EAGER,
    Conversion,
    Failure,
    Measurement,
    Profile,
    Results,
    Subject,
    Variant,
)
from phoneward.apps.bench.turns import held, schedule, take_turns
from phoneward.apps.bench.workshop import Workshop
from phoneward.runtime.engines import format_of

MEASURED = ("executorch", "litert", "onnxruntime", EAGER)
VARIANTS: tuple[Variant, ...] = ("ours", "naive")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """What to measure, and how often."""

    models: tuple[str, ...]
    engines: tuple[str, ...]
    rounds: int
    runs: int
    profile: bool
    lock: Path | None


@dataclass
class Bench:
    """One benchmark under way: what was made and measured so far."""

    plan: Plan
    shop: Workshop
    progress: Progress
    conversions: list[Conversion] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)

    def convert(self) -> list[Subject]:
        """Make every file that can be made; returns what there is to time."""
        wanted = [
            Subject(model=model, engine=engine, variant=variant)
            for model in self.plan.models
            for engine in self.plan.engines
            for variant in VARIANTS
            if (engine, variant) != (EAGER, "ours")
        ]
        ready = []
        for number, subject in enumerate(wanted, start=1):
            if subject.engine != EAGER:
                self.progress(f"convert {subject}", number, len(wanted))
                if not self._convert(subject):
                    continue
            ready.append(subject)
        return ready

    def measure(self, subjects: Sequence[Subject]) -> None:
        """Take turns over all rounds; what cannot be run once is not tried again."""
        total, count = len(subjects) * self.plan.rounds, itertools.count(1)
        given_up: set[Subject] = set()

        def one(number: int, subject: Subject) -> None:
            self.progress(f"round {number + 1}: {subject}", next(count), total)
            if subject in given_up:
                return
            try:
                timing = self.shop.time(subject, self.plan.runs)
            except ChildError as error:
                given_up.add(subject)
                self._fail(subject, f"round {number + 1}: {error}")
                return
            self.measurements.append(Measurement(subject=subject, round=number, timing=timing))

        groups = schedule(subjects, self.plan.rounds, lambda subject: subject.model)
        take_turns(groups, one, self.plan.lock)

    def results(self, command: str) -> Results:
        """Gather everything; profiles all of ours if the plan says so, else those that missed."""
        subjects = list(dict.fromkeys(m.subject for m in self.measurements))
        ours = [subject for subject in subjects if subject.variant == "ours"]
        pairs = [(s, s.model_copy(update={"variant": "naive"}) in subjects) for s in ours]
        results = Results(
            machine=this_machine(),
            date=datetime.now(timezone.utc).date().isoformat(),
            command=command,
            rounds=self.plan.rounds,
            runs=self.plan.runs,
            threads=self.shop.threads,
            conversions=tuple(self.conversions),
            failures=tuple(self.failures),
            measurements=tuple(self.measurements),
            agreements=tuple(self.shop.agreement(s, naive=naive) for s, naive in pairs),
        )
        profiled = ours if self.plan.profile else missed(results)
        return results.model_copy(update={"profiles": self._profiles(profiled)})

    def _convert(self, subject: Subject) -> bool:
        format_name = format_of(subject.engine)
        try:
            with held(self.plan.lock, exclusive=False):
                made = self.shop.convert(subject.model, format_name, subject.variant)
        except ChildError as error:
            self._fail(subject, str(error))
            return False
        self.conversions.append(made)
        return True

    def _fail(self, subject: Subject, error: str) -> None:
        form = subject.engine if subject.engine == EAGER else format_of(subject.engine)
        self.failures.append(
            Failure(model=subject.model, format=form, variant=subject.variant, error=error)
        )

    def _profiles(self, subjects: Sequence[Subject]) -> tuple[Profile, ...]:
        profiles = []
        for number, subject in enumerate(subjects, start=1):
            self.progress(f"profile {subject}", number, len(subjects))
            with held(self.plan.lock, exclusive=True):
                profiles.append(self.shop.profile(subject, self.plan.runs))
        return tuple(profiles)

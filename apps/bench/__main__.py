"""`python -m phoneward.apps.bench`: measure, and write `docs/benchmarks/hybrids.md`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from phoneward.apps.bench.child import ChildError
from phoneward.apps.bench.machine import this_machine, usable_cores
from phoneward.apps.bench.page import missed, render
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
from phoneward.apps.cli.output import progress_bar
from phoneward.errors import PhonewardError
from phoneward.export.cache import default_root
from phoneward.export.models import find
from phoneward.runtime.engines import ENGINES, format_of

MODELS = ("efficientformer_l1", "mobilevit_s", "mobilevitv2_100", "efficientformerv2_s0")
MEASURED = ("executorch", "litert", "onnxruntime", EAGER)
VARIANTS: tuple[Variant, ...] = ("ours", "naive")
# options that say where, not what: they stay out of the command that a page quotes
_PLACES = {"--work", "--lock", "-o", "--output"}

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
        """Take turns over all rounds."""
        total = len(subjects) * self.plan.rounds

        def one(number: int, subject: Subject) -> None:
            self.progress(f"round {number + 1}: {subject}", len(self.measurements) + 1, total)
            timing = self.shop.time(subject, self.plan.runs)
            self.measurements.append(Measurement(subject=subject, round=number, timing=timing))

        take_turns(schedule(subjects, self.plan.rounds), one, self.plan.lock)

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
            self.failures.append(
                Failure(
                    model=subject.model,
                    format=format_name,
                    variant=subject.variant,
                    error=str(error),
                )
            )
            return False
        self.conversions.append(made)
        return True

    def _profiles(self, subjects: Sequence[Subject]) -> tuple[Profile, ...]:
        profiles = []
        for number, subject in enumerate(subjects, start=1):
            self.progress(f"profile {subject}", number, len(subjects))
            with held(self.plan.lock, exclusive=True):
                profiles.append(self.shop.profile(subject, self.plan.runs))
        return tuple(profiles)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        plan = Plan(
            models=_names(options.models, find),
            engines=_names(options.engines, lambda e: e == EAGER or ENGINES.entry(e)),
            rounds=options.rounds,
            runs=options.runs,
            profile=options.profile,
            lock=options.lock,
        )
        with progress_bar(quiet=False) as progress:
            bench = Bench(plan, Workshop(options.work.absolute(), options.threads), progress)
            subjects = bench.convert()
            if options.convert_only:
                return 0
            bench.measure(subjects)
            results = bench.results(_command(arguments))
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(render(results), encoding="utf-8")
        data = options.output.with_suffix(".json")
        data.write_text(results.model_dump_json() + "\n", encoding="utf-8")
    except PhonewardError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("phoneward.apps.bench", description=__doc__)
    add = parser.add_argument
    add("--models", default=",".join(MODELS), help="names, separated by commas")
    add("--engines", default=",".join(MEASURED), help="names, separated by commas")
    add("--rounds", type=_positive, default=5, help="turns of every subject [5]")
    add("--runs", type=_positive, default=40, help="timed runs in a turn [40]")
    add("--threads", type=_positive, default=min(2, usable_cores()), help="of every engine [2]")
    add("--profile", action="store_true", help="operator tables for all of ours, not only misses")
    add("--convert-only", action="store_true", help="fill the work folder and time nothing")
    add("--work", type=Path, default=default_root() / "bench", help="where files are kept")
    add("--lock", type=Path, help="flock this file: shared to convert, exclusive for each round")
    add("-o", "--output", type=Path, default=Path("docs/benchmarks/hybrids.md"))
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _names(text: str, check: Callable[[str], object]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        check(name)
    return names


def _command(arguments: Sequence[str]) -> str:
    kept = []
    words = iter(arguments)
    for word in words:
        if word in _PLACES:
            next(words, None)
        elif word.partition("=")[0] not in _PLACES:
            kept.append(word)
    return shlex.join(["python", "-m", "phoneward.apps.bench", *kept])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

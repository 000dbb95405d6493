"""`python -m phoneward.apps.bench`: measure, and write `docs/benchmarks/hybrids.md`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from phoneward.apps.bench.machine import quoted_command, usable_cores
from phoneward.apps.bench.page import render
from phoneward.apps.bench.records import to_json
from phoneward.apps.bench.run import MEASURED, Bench, Plan
from phoneward.apps.bench.workshop import Workshop
from phoneward.apps.cli.output import progress_bar
from phoneward.errors import PhonewardError, UnknownName
from phoneward.export.cache import default_root
from phoneward.export.models import find

MODELS = ("efficientformer_l1", "mobilevit_s", "mobilevitv2_100", "efficientformerv2_s0")


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        plan = Plan(
            models=_names(options.models, find),
            engines=_names(options.engines, _check_engine),
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
            results = bench.results(quoted_command("phoneward.apps.bench", arguments))
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(render(results), encoding="utf-8")
        data = options.output.with_suffix(".json")
        data.write_text(to_json(results), encoding="utf-8")
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


def _check_engine(name: str) -> None:
    if name not in MEASURED:
        raise UnknownName("engine", name, MEASURED)


def _names(text: str, check: Callable[[str], object]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        check(name)
    return names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m phoneward.apps.bench`: measure, and write `docs/benchmarks/hybrids.md`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from phoneward.apps.bench.machine import quoted_command
from phoneward.apps.bench.options import add_common, errors_end, names, write_page
from phoneward.apps.bench.page import render
from phoneward.apps.bench.run import MEASURED, Bench, Plan
from phoneward.apps.bench.workshop import Workshop
from phoneward.apps.cli.output import progress_bar
from phoneward.errors import UnknownName
from phoneward.export.models import cards, find

MODELS = ("efficientformer_l1", "mobilevit_s", "mobilevitv2_100", "efficientformerv2_s0")


@errors_end
def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    plan = Plan(
        models=names(options.models, _check_model),
        engines=names(options.engines, _check_engine),
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
    write_page(options.output, render(results), results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("phoneward.apps.bench", description=__doc__)
    add = parser.add_argument
    add("--models", default=",".join(MODELS), help="names, separated by commas")
    add("--engines", default=",".join(MEASURED), help="names, separated by commas")
    add("--profile", action="store_true", help="operator tables for all of ours, not only misses")
    add_common(parser, Path("docs/benchmarks/hybrids.md"), rounds=5, runs=40)
    return parser


def _check_model(name: str) -> None:
    card, _ = find(name)
    if len(card.stages) > 1:
        known = [other for other, one in cards().items() if len(one.stages) == 1]
        raise UnknownName("classifier", name, known)


def _check_engine(name: str) -> None:
    if name not in MEASURED:
        raise UnknownName("engine", name, MEASURED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

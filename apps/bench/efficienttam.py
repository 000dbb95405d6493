"""`python -m phoneward.apps.bench.efficienttam`: time a tracked frame, stage by stage."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from phoneward.apps.bench.machine import quoted_command
from phoneward.apps.bench.options import add_common, errors_end, names, write_page
from phoneward.apps.bench.tam_page import render
from phoneward.apps.bench.tam_run import BANKS, TIMED, StageBench, StagePlan, StageShop
from phoneward.apps.cli.output import progress_bar
from phoneward.errors import UnknownName
from phoneward.export.models import find

MODEL = "efficienttam_ti_512x512"


@errors_end
def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    _check_model(options.model)
    banks = names(options.banks, _check_bank)
    plan = StagePlan(
        model=options.model,
        banks=tuple(bank for bank in BANKS if bank in banks),
        engines=names(options.engines, _check_engine),
        rounds=options.rounds,
        runs=options.runs,
        threads=options.threads,
        lock=options.lock,
    )
    with progress_bar(quiet=False) as progress:
        bench = StageBench(plan, StageShop(options.work.absolute(), plan), progress)
        subjects = bench.convert()
        if options.convert_only:
            return 0
        bench.measure(subjects)
        results = bench.results(quoted_command("phoneward.apps.bench.efficienttam", arguments))
    write_page(options.output, render(results), results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("phoneward.apps.bench.efficienttam", description=__doc__)
    add = parser.add_argument
    add("--model", default=MODEL, help=f"[{MODEL}]")
    add("--banks", default=",".join(BANKS), help="names, separated by commas")
    add("--engines", default=",".join(TIMED), help="names, separated by commas")
    add_common(parser, Path("docs/benchmarks/efficienttam.md"), rounds=5, runs=6)
    return parser


def _check_model(name: str) -> None:
    card, _ = find(name)
    if card.family != "efficienttam":
        raise UnknownName("tracker", name, (MODEL,))


def _check_bank(name: str) -> None:
    if name not in BANKS:
        raise UnknownName("bank", name, BANKS)


def _check_engine(name: str) -> None:
    if name not in TIMED:
        raise UnknownName("engine", name, TIMED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

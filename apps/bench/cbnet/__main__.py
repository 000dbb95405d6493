"""`python -m phoneward.apps.bench.cbnet`: train, measure, write `docs/benchmarks/cbnet.md`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from phoneward.apps.bench.cbnet.page import render
from phoneward.apps.bench.cbnet.run import Bench, Plan, open_datasets
from phoneward.apps.bench.machine import quoted_command
from phoneward.apps.bench.options import add_places, errors_end, names, positive, write_page
from phoneward.apps.cli.output import progress_bar
from phoneward.errors import InvalidSpec

_MODULE = "phoneward.apps.bench.cbnet"


@errors_end
def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    if options.images % options.batch:
        raise InvalidSpec(f"--images {options.images} is no multiple of --batch {options.batch}")
    plan = Plan(
        data=open_datasets(names(options.data, str)),
        seeds=options.seeds,
        rounds=options.rounds,
        turns=options.turns,
        images=options.images,
        batch=options.batch,
        threads=options.threads,
        work=options.work / "cbnet",
        lock=options.lock,
    )
    with progress_bar(quiet=False) as progress:
        bench = Bench(plan, progress)
        bench.train()
        if options.train_only:
            return 0
        bench.export()
        bench.measure()
        bench.count()
        results = bench.results(quoted_command(_MODULE, arguments))
        pictures = bench.write_pictures(options.output)
    write_page(options.output, render(results, pictures), results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(_MODULE, description=__doc__)
    add = parser.add_argument
    add("--data", default="mnist,fashion-mnist", help="names or folders, separated by commas")
    add("--seeds", type=positive, default=3, help="trainings of each data set [3]")
    add("--rounds", type=positive, default=5, help="processes of each engine [5]")
    add("--turns", type=positive, default=6, help="turns of every network in a process [6]")
    add("--images", type=positive, default=400, help="images of a turn [400]")
    add("--batch", type=positive, default=100, help="images at a time, where it is not one [100]")
    add("--train-only", action="store_true", help="train what is missing, and stop")
    add_places(parser, Path("docs/benchmarks/cbnet.md"))
    parser.set_defaults(threads=1)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

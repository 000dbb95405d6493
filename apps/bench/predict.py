"""`python -m phoneward.apps.bench.predict`: error of latency predictions with models left out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from phoneward.apps.bench.machine import quoted_command
from phoneward.apps.bench.options import errors_end, write_page
from phoneward.apps.bench.predict_page import render
from phoneward.apps.bench.predict_run import Run
from phoneward.profiles.predict.parameters import FILE

DATA = Path(__file__).parents[2] / "profiles" / "predict" / "data"


@errors_end
def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--fit", action="store_true", help="fit, and rewrite the shipped parameters as well")
    add("-o", "--output", type=Path, default=Path("docs/benchmarks/predict.md"))
    options = parser.parse_args(arguments)
    run = Run(lambda text: sys.stderr.write(f"{text}\n"))
    if options.fit:
        run.fit()
    results = run.results(quoted_command("phoneward.apps.bench.predict", arguments))
    if options.fit:
        (DATA / FILE).write_text(run.parameters().text(), encoding="utf-8")
    write_page(options.output, render(results), results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

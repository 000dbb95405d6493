"""What the benchmarks' command lines have in common."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from phoneward.apps.bench.machine import usable_cores
from phoneward.apps.bench.records import to_json
from phoneward.errors import PhonewardError
from phoneward.export.cache import default_root
from phoneward.spec import Spec

Main = Callable[[Sequence[str]], int]


def errors_end(main: Main) -> Main:
    """Make a command line of one: an error is one line on standard error, and its exit code."""

    @functools.wraps(main)
    def ended(arguments: Sequence[str]) -> int:
        try:
            return main(arguments)
        except PhonewardError as error:
            sys.stderr.write(f"error: {error}\n")
            return error.exit_code

    return ended


def add_common(parser: argparse.ArgumentParser, output: Path, *, rounds: int, runs: int) -> None:
    """Add how often to measure, and where things are; the arguments are the defaults."""
    add = parser.add_argument
    add("--rounds", type=positive, default=rounds, help=f"turns of every subject [{rounds}]")
    add("--runs", type=positive, default=runs, help=f"timed runs in a turn [{runs}]")
    add("--convert-only", action="store_true", help="fill the work folder and time nothing")
    add_places(parser, output)


def add_places(parser: argparse.ArgumentParser, output: Path) -> None:
    """Add the number of threads, the work folder, the lock and the page."""
    add = parser.add_argument
    add("--threads", type=positive, default=min(2, usable_cores()), help="of every engine [2]")
    add("--work", type=Path, default=default_root() / "bench", help="where files are kept")
    add("--lock", type=Path, help="flock this file: shared to convert, exclusive to time")
    add("-o", "--output", type=Path, default=output)


def positive(text: str) -> int:
    """Read a whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def names(text: str, check: Callable[[str], object]) -> tuple[str, ...]:
    """Split at commas, each name once; `check` raises for one that is unknown."""
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in found:
        check(name)
    return found


def write_page(output: Path, page: str, results: Spec) -> None:
    """Write a page, and its data as JSON beside it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    output.with_suffix(".json").write_text(to_json(results), encoding="utf-8")

"""Tables, JSON and progress for the verbs; people read stderr's progress, programs read JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.table import Table

JsonFlag = Annotated[bool, typer.Option("--json", help="Print only JSON on standard output.")]


def print_json(value: Any) -> None:
    """Print a JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; columns whose name ends in a unit or sign of quantity stay unwrapped."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    # a pipe has no width of its own; 160 columns keep rows on one line for grep
    width = None if sys.stdout.isatty() else 160
    Console(width=width, markup=False, highlight=False).print(table)


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yield `report(step, done, total)`; draws on a copy of stderr that log capture leaves alone.

    Without a terminal each step but the first is one plain line, so that bad input, which the
    first step finds, is answered with one line; `quiet` prints nothing.
    """
    with os.fdopen(os.dup(2), "w") as stream:
        console = Console(file=stream, quiet=quiet)
        if not console.is_terminal:

            def report(step: str, done: int, total: int) -> None:
                if done:
                    console.print(f"[{done}/{total}] {step}", markup=False, highlight=False)

            yield report
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn())
        with Progress(*columns, MofNCompleteColumn(), Elapsed(), console=console) as progress:
            task = progress.add_task("", total=None)
            yield lambda step, done, total: progress.update(
                task, description=step, completed=done, total=total
            )

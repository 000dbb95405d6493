"""`python -m phoneward.apps.bench.matrix`: every model to every format, into `docs/matrix.md`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from phoneward.apps.bench.child import ChildError, run_child
from phoneward.apps.bench.machine import DISTRIBUTIONS, quoted_command, this_machine
from phoneward.apps.bench.matrix_page import render
from phoneward.apps.bench.matrix_worker import Cell, MatrixDone, MatrixJob, cell_file, keep
from phoneward.apps.bench.options import errors_end
from phoneward.apps.bench.turns import held
from phoneward.apps.cli.output import progress_bar
from phoneward.export.backends import BACKENDS
from phoneward.export.cache import default_root, key_of, versions
from phoneward.export.models import cards, find
from phoneward.names import Precision

BASELINES = ("mobilenet", "efficientnet")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Matrix:
    """The cells wanted, and the folder of finished ones; it belongs to one state of the code."""

    models: tuple[str, ...]
    columns: tuple[tuple[str, Precision], ...]
    folder: Path
    lock: Path | None

    def missing(self, model: str) -> list[tuple[str, Precision]]:
        """Columns of a model without a result yet."""
        return [c for c in self.columns if not cell_file(self.folder, model, *c).exists()]

    def fill(self, model: str) -> None:
        """Export what is missing of a model, in one process unless one dies on the way."""
        while missing := self.missing(model):
            job = MatrixJob(model=model, columns=tuple(missing), folder=str(self.folder))
            try:
                with held(self.lock, exclusive=False):
                    run_child("matrix_worker", job, MatrixDone, self.folder / "logs" / model)
            except ChildError as error:
                self._blame(model, str(error))

    def cells(self) -> list[Cell]:
        """All finished cells in the order of models and columns."""
        files = [cell_file(self.folder, m, *c) for m in self.models for c in self.columns]
        return [Cell.model_validate_json(f.read_text(encoding="utf-8")) for f in files]

    def _blame(self, model: str, error: str) -> None:
        """The child works in order, so the first cell without a result is the one it died of."""
        format_name, precision = self.missing(model)[0]
        cell = Cell(model=model, format=format_name, precision=precision, error=error)
        keep(cell, self.folder)


@errors_end
def main(arguments: Sequence[str]) -> int:
    """Fill the matrix and write the page; returns 0, 1 if a cell failed, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    matrix = Matrix(
        models=_models(options.models, everything=options.all),
        columns=_columns(options.formats),
        folder=options.work.absolute() / _state(),
        lock=options.lock,
    )
    with progress_bar(quiet=False) as progress:
        _fill(matrix, options.jobs, progress)
    cells = matrix.cells()
    command = quoted_command("phoneward.apps.bench.matrix", arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(render(cells, this_machine(), command), encoding="utf-8")
    return 1 if any(cell.failed for cell in cells) else 0


def _fill(matrix: Matrix, jobs: int, progress: Progress) -> None:
    total, done, guard = len(matrix.models), 0, Lock()

    def one(model: str) -> None:
        nonlocal done
        matrix.fill(model)
        with guard:
            done += 1
            progress(model, done, total)

    with ThreadPoolExecutor(jobs) as pool:
        for future in [pool.submit(one, model) for model in matrix.models]:
            future.result()


def _models(text: str | None, *, everything: bool) -> tuple[str, ...]:
    if text is None:
        return tuple(
            name
            for name, card in cards().items()
            if everything or card.architecture not in BASELINES
        )
    names = _split(text)
    for name in names:
        find(name)
    return names


def _columns(text: str | None) -> tuple[tuple[str, Precision], ...]:
    formats: Iterable[str] = BACKENDS if text is None else _split(text)
    return tuple((name, p) for name in formats for p in BACKENDS.get(name).precisions)


def _split(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _state() -> str:
    """Name of the code and the packages as they are: results of another state do not count."""
    return key_of({"kind": "matrix", "tools": versions(DISTRIBUTIONS)})[:12]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("phoneward.apps.bench.matrix", description=__doc__)
    add = parser.add_argument
    add("--models", help="names, separated by commas [all hybrids]")
    add("--all", action="store_true", help="the convolutional baselines too")
    add("--formats", help="names, separated by commas [all]")
    add("--jobs", type=int, choices=range(1, 65), default=1, metavar="N", help="at a time [1]")
    add("--work", type=Path, default=default_root() / "matrix", help="where results are kept")
    add("--lock", type=Path, help="flock this file, shared, for each model")
    add("-o", "--output", type=Path, default=Path("docs/matrix.md"))
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The matrix of models and formats as a Markdown page."""

from __future__ import annotations

from collections.abc import Sequence

from phoneward.apps.bench.matrix_worker import Cell
from phoneward.apps.bench.page import markdown_table
from phoneward.apps.bench.records import Machine
from phoneward.names import ParityStatus

_INTRODUCTION = """\
# Models and formats

Every model with random weights, exported to every format and precision by the pipeline that \
`phoneward export` uses, one process a model. A cell holds the largest error on eight images, over \
the range of PyTorch's output for the image, and the share of five photographs with PyTorch's top \
class, then megabytes, then seconds, which include PyTorch's own answers, the proof, and in the \
first cell of a format the import of its converter. `{absent}`: no engine for the format \
runs on this machine.

- Machine: {cpu}, {cores} cores, {system}
- Packages: {versions}
- Command: `{command}`

{ok} of {total} cells have an artifact that agrees with PyTorch, {unproven} more have one that was \
not executed here, {failed} failed.
"""


def render(cells: Sequence[Cell], machine: Machine, command: str) -> str:
    """Write the whole page; cells come in the order of rows and columns."""
    models = list(dict.fromkeys(cell.model for cell in cells))
    columns = list(dict.fromkeys((cell.format, cell.precision) for cell in cells))
    by_place = {(cell.model, cell.format, cell.precision): cell for cell in cells}
    rows = [[m, *(_text(by_place[m, f, p]) for f, p in columns)] for m in models]
    head = ["model", *(f"{format_name} {precision}" for format_name, precision in columns)]
    failures = [f"- {c.model} as {c.format}-{c.precision}: {c.error}\n" for c in cells if c.failed]
    return (
        _introduction(cells, machine, command)
        + "\n"
        + markdown_table(head, rows)
        + ("\n## Failures\n\n" + "".join(failures) if failures else "")
    )


def _introduction(cells: Sequence[Cell], machine: Machine, command: str) -> str:
    failed = sum(cell.failed for cell in cells)
    ok = sum(cell.status is ParityStatus.OK for cell in cells)
    return _INTRODUCTION.format(
        absent=ParityStatus.NOT_EXECUTED,
        command=command,
        cpu=machine.cpu,
        cores=machine.cores,
        system=machine.system,
        versions=", ".join(f"{name} {version}" for name, version in machine.versions.items()),
        ok=ok,
        total=len(cells),
        unproven=len(cells) - ok - failed,
        failed=failed,
    )


def _text(cell: Cell) -> str:
    if cell.seconds is None or cell.bytes is None:
        return "failed"
    if cell.status is ParityStatus.NOT_EXECUTED:
        verdict = str(ParityStatus.NOT_EXECUTED)
    else:
        agreement = "" if cell.top1_agreement is None else f", {cell.top1_agreement:.0%}"
        error = "?" if cell.relative_error is None else f"{cell.relative_error:.0e}"
        verdict = f"{'**failed**' if cell.failed else 'ok'} {error}{agreement}"
    return f"{verdict}, {cell.bytes / 1e6:.1f} MB, {cell.seconds:.0f} s"

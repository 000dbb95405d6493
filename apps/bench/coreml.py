"""`python -m phoneward.apps.bench.coreml`: what Core ML packages compute, executed by `mil`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from phoneward.apps.bench.child import ChildError, run_child
from phoneward.apps.bench.coreml_worker import CoremlJob, CoremlRow, Executed
from phoneward.apps.bench.machine import DISTRIBUTIONS, quoted_command, this_machine
from phoneward.apps.bench.options import add_places, errors_end, names, positive, write_page
from phoneward.apps.bench.page import markdown_table
from phoneward.apps.bench.records import Machine
from phoneward.apps.bench.turns import held
from phoneward.apps.cli.output import progress_bar
from phoneward.bundle import ClipParity
from phoneward.errors import PhonewardError
from phoneward.export.cache import key_of, versions
from phoneward.export.models import cards, find
from phoneward.names import ParityStatus
from phoneward.spec import Spec

_FAMILIES = ("efficientformer", "mobilevit")
_TRACKERS = ("efficienttam_ti_512x512", "efficienttam_s_512x512")
_INTRODUCTION = """\
# Core ML packages, executed on this machine

Every hybrid and EfficientTAM, with random weights, exported to Core ML by the pipeline that \
`phoneward export` uses, and executed op by op by the engine `mil`, which rounds every result to \
the type that the program declares and keeps sums in float32. No Apple device was used: this says \
what the programs compute, not how fast or in which order of sums a phone computes them.

Errors are the largest of eight images (or of a stage's examples) over the range of PyTorch's \
output; `half sums` is that of the first with sums in half precision as well, one term after the \
other: the worst case. Seconds are the engine's for one run.

- Machine: {cpu}, {cores} cores, {system}
- Packages: {versions}
- Command: `{command}`

{passed} of {total} packages agree with PyTorch within the gate's thresholds.
"""


class Results(Spec):
    """All rows, and the machine."""

    machine: Machine
    command: str
    rows: tuple[CoremlRow, ...]


@errors_end
def main(arguments: Sequence[str]) -> int:
    """Examine every model and write the page; returns 0, 1 if a package failed, 2: bad input."""
    options = _parser().parse_args(arguments)
    models = _default() if options.models is None else names(options.models, find)
    folder = folder_of(options.work, options.threads, options.runs)
    rows = []
    with progress_bar(quiet=False) as progress:
        for done, model in enumerate(models):
            progress(model, done, len(models))
            rows.append(_row(model, folder, options))
    command = quoted_command("phoneward.apps.bench.coreml", arguments)
    results = Results(machine=this_machine(), command=command, rows=tuple(rows))
    write_page(options.output, render(results), results)
    return 1 if any(p.status is ParityStatus.FAILED for r in rows for p in r.packages) else 0


def render(results: Results) -> str:
    """Write the whole page."""
    packages = [package for row in results.rows for package in row.packages]
    machine = results.machine
    head = _INTRODUCTION.format(
        cpu=machine.cpu,
        cores=machine.cores,
        system=machine.system,
        versions=", ".join(f"{name} {version}" for name, version in machine.versions.items()),
        command=results.command,
        passed=sum(package.status is ParityStatus.OK for package in packages),
        total=len(packages),
    )
    columns = ("model", "stage", "precision", "ops", "op types", "error", "top-1", "half sums", "s")
    table = [[row.model, *_cells(package)] for row in results.rows for package in row.packages]
    clips = [[row.model, *_clip(clip)] for row in results.rows for clip in row.clips]
    failures = [
        f"- {row.model}, {package.stage} {package.precision}: {package.reason}\n"
        for row in results.rows
        for package in row.packages
        if package.reason
    ]
    page = head + "\n" + markdown_table(columns, table)
    if clips:
        page += "\n## Clips\n\nThe four stages together on the clip of the gate.\n\n"
        page += markdown_table(("model", "precision", "judged by", "figure", "verdict"), clips)
    return page + ("\n## Failures\n\n" + "".join(failures) if failures else "")


def _cells(package: Executed) -> list[str]:
    return [
        package.stage,
        str(package.precision),
        str(package.ops),
        str(package.types),
        _error(package.relative_error)
        + ("" if package.status is ParityStatus.OK else " **failed**"),
        "" if package.top1_agreement is None else f"{package.top1_agreement:.0%}",
        "" if package.half_sums_error is None else _error(package.half_sums_error),
        f"{package.run_s:.2f}",
    ]


def _clip(clip: ClipParity) -> list[str]:
    figure = _error(clip.relative_error)
    if clip.basis == "masks" and clip.min_iou is not None:
        figure = f"IoU {clip.min_iou:.4f}"
    return [str(clip.precision), clip.basis, figure, str(clip.status)]


def _error(value: float | None) -> str:
    return "?" if value is None else f"{value:.1e}"


def folder_of(work: Path, threads: int, runs: int) -> Path:
    """Return where rows are kept that these tools made and that are timed in this way."""
    parts = {"kind": "coreml", "tools": versions(DISTRIBUTIONS), "threads": threads, "runs": runs}
    return work / key_of(parts)[:12]


def _row(model: str, folder: Path, options: argparse.Namespace) -> CoremlRow:
    record = folder / f"{model}.json"
    if record.exists():
        return CoremlRow.model_validate_json(record.read_text(encoding="utf-8"))
    job = CoremlJob(
        model=model,
        threads=options.threads,
        runs=options.runs,
        half_sums=model not in _TRACKERS,
    )
    with held(options.lock, exclusive=True):
        try:
            row = run_child("coreml_worker", job, CoremlRow, folder / model)
        except ChildError as error:
            raise PhonewardError(f"{model}: {error}") from error
    record.write_text(row.model_dump_json(), encoding="utf-8")
    return row


def _default() -> tuple[str, ...]:
    hybrids = (n for n, card in cards().items() if card.architecture.startswith(_FAMILIES))
    return (*hybrids, *_TRACKERS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("phoneward.apps.bench.coreml", description=__doc__)
    parser.add_argument("--models", help="names, separated by commas [all hybrids, EfficientTAM]")
    parser.add_argument("--runs", type=positive, default=3, help="timed runs [3]")
    add_places(parser, Path("docs/benchmarks/coreml.md"))
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

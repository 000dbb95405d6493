"""Child process: export one model to the given formats through the pipeline, one by one."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from phoneward.apps.bench.child import first_line, serve
from phoneward.bundle import Artifact
from phoneward.errors import PhonewardError
from phoneward.export.pipeline import GateFailed, Options, export_bundle
from phoneward.export.request import make_request
from phoneward.names import ParityStatus, Precision
from phoneward.spec import Spec


class MatrixJob(Spec):
    """A model, the (format, precision) pairs to make in order, and the folder for results."""

    model: str
    columns: tuple[tuple[str, Precision], ...]
    folder: str


class MatrixDone(Spec):
    """The number of cells that were filled."""

    cells: int


class Cell(Spec):
    """What became of one export; `error` is the first line of a failure.

    An artifact that exists but misses a parity threshold has both figures and an error.
    `seconds` includes PyTorch's reference answers and the parity run.
    """

    model: str
    format: str
    precision: Precision
    seconds: float | None = None
    bytes: int | None = None
    status: ParityStatus | None = None
    relative_error: float | None = None
    top1_agreement: float | None = None
    error: str | None = None

    @property
    def failed(self) -> bool:
        """No artifact, or one that disagrees with PyTorch."""
        return self.error is not None


def cell_file(folder: Path, model: str, format_name: str, precision: Precision) -> Path:
    """Where the result of a cell is kept."""
    return folder / f"{model}-{format_name}-{precision}.json"


def keep(cell: Cell, folder: Path) -> None:
    """Write a result whole or not at all."""
    file = cell_file(folder, cell.model, cell.format, cell.precision)
    new = file.with_suffix(".new")
    new.write_text(cell.model_dump_json(), encoding="utf-8")
    new.replace(file)


def fill(job: MatrixJob) -> MatrixDone:
    """Make every cell of the job and keep each as soon as it is known."""
    for format_name, precision in job.columns:
        keep(_export(job.model, format_name, precision), Path(job.folder))
    return MatrixDone(cells=len(job.columns))


def _export(model: str, format_name: str, precision: Precision) -> Cell:
    cell = Cell(model=model, format=format_name, precision=precision)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            request = make_request(model, "random", (), [format_name], [precision])
            bundle = export_bundle(request, Path(folder) / "bundle", Options(use_cache=False))
        except GateFailed as failure:
            (artifact,) = failure.artifacts
            error = artifact.parity.reason
        except PhonewardError as failure:
            return cell.model_copy(update={"error": first_line(str(failure))})
        else:
            (artifact,), error = bundle.manifest.artifacts, None
    seconds = time.perf_counter() - started
    figures = {"seconds": seconds, "error": error, **_figures(artifact)}
    return cell.model_copy(update=figures)


def _figures(artifact: Artifact) -> dict[str, object]:
    parity = artifact.parity
    return {
        "bytes": artifact.bytes,
        "status": parity.status,
        "relative_error": max((o.relative_error for o in parity.outputs), default=None),
        "top1_agreement": parity.top1_agreement,
    }


if __name__ == "__main__":
    serve(MatrixJob, fill)

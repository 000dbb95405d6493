"""Child process: export one model to Core ML and see what its packages compute, op by op."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.apps.bench.child import serve
from phoneward.bundle import Artifact, ClipParity
from phoneward.export.pipeline import GateFailed, Options, export_bundle
from phoneward.export.request import make_request
from phoneward.names import ParityStatus, Precision
from phoneward.runtime.engines.mil.numerics import Numerics
from phoneward.runtime.engines.mil.program import Program
from phoneward.runtime.engines.mil.threads import torch_threads
from phoneward.runtime.parity import Reference, compare
from phoneward.spec import Spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.export.request import ExportRequest

_WARM_UP = 1


class CoremlJob(Spec):
    """A model; threads of the engine; timed runs; whether to try half-precision sums."""

    model: str
    threads: int
    runs: int
    half_sums: bool


class Executed(Spec):
    """One package: what the gate found, and how long the engine `mil` takes for it.

    Errors are the largest of a sample over the range of PyTorch's output; `half_sums_error` is
    that of the first sample with sums in half precision too.
    """

    stage: str
    precision: Precision
    ops: int
    types: int
    status: ParityStatus
    reason: str | None
    relative_error: float | None
    top1_agreement: float | None
    half_sums_error: float | None
    run_s: float


class CoremlRow(Spec):
    """All packages of a model, and the clips that they track together."""

    model: str
    packages: tuple[Executed, ...]
    clips: tuple[ClipParity, ...]


def examine(job: CoremlJob) -> CoremlRow:
    """Export to fp32 and fp16, then run every package again to time it."""
    request = make_request(job.model, "random", (), ["coreml"], [Precision.FP32, Precision.FP16])
    with tempfile.TemporaryDirectory() as folder:
        artifacts, clips = _verdicts(request, Path(folder) / "verdicts", job.threads)
        bundle = Path(folder) / "verdicts"
        if not bundle.exists():
            return CoremlRow(model=job.model, packages=_unopened(artifacts), clips=clips)
        reference = Reference.load(bundle / "reference.npz")
        packages = tuple(_execute(bundle, one, reference, job) for one in artifacts)
    return CoremlRow(model=job.model, packages=packages, clips=clips)


def _verdicts(
    request: ExportRequest, place: Path, threads: int
) -> tuple[Sequence[Artifact], tuple[ClipParity, ...]]:
    try:
        manifest = export_bundle(request, place, Options(threads=threads)).manifest
    except GateFailed as failure:
        return failure.artifacts, failure.clips
    return manifest.artifacts, manifest.clips


def _execute(bundle: Path, artifact: Artifact, reference: Reference, job: CoremlJob) -> Executed:
    program = Program.load(bundle / artifact.path)
    inputs = {t.name: reference.inputs(artifact.stage, t)[0] for t in artifact.inputs}
    times = []
    with torch_threads(job.threads):
        for _ in range(_WARM_UP + job.runs):
            started = time.perf_counter()
            program(inputs)
            times.append(time.perf_counter() - started)
        worst = None
        if job.half_sums and artifact.precision is Precision.FP16:
            answers = program(inputs, Numerics.HALF_SUMS)
            worst = max(
                _error(reference.outputs(artifact.stage, t)[:1], answers[t.name][None])
                for t in artifact.outputs
            )
    counts = program.package.op_types()
    del counts["const"]
    figures = {
        "ops": sum(counts.values()),
        "types": len(counts),
        "half_sums_error": worst,
        "run_s": statistics.median(times[_WARM_UP:]),
    }
    return _judged(artifact).model_copy(update=figures)


def _error(expected: NDArray[Any], got: NDArray[Any]) -> float:
    if not np.isfinite(got).all():
        return float("inf")
    return compare("output", expected, got).relative_error


def _unopened(artifacts: Sequence[Artifact]) -> tuple[Executed, ...]:
    return tuple(_judged(artifact) for artifact in artifacts)


def _judged(artifact: Artifact) -> Executed:
    parity = artifact.parity
    return Executed(
        stage=artifact.stage,
        precision=artifact.precision,
        ops=0,
        types=0,
        status=parity.status,
        reason=parity.reason,
        relative_error=max((o.relative_error for o in parity.outputs), default=None),
        top1_agreement=parity.top1_agreement,
        half_sums_error=None,
        run_s=0.0,
    )


if __name__ == "__main__":
    serve(CoremlJob, examine)

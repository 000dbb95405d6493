"""Is an artifact still what PyTorch computed? Numpy only, so that any board can answer.

A bundle carries PyTorch's answers (`reference.npz`); an artifact is run on the same inputs and
held to thresholds. The same code is the gate of `export` and the check of `verify`.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.bundle import Artifact, Bundle, OutputParity, Parity
from phoneward.errors import BundleError, EngineError
from phoneward.names import ParityStatus, Precision
from phoneward.runtime.engines import engines_for, open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.runtime.engines.session import Session
    from phoneward.spec import TensorSpec

    Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Thresholds:
    """What an artifact must reach to pass.

    `relative_error` bounds the largest absolute error over the range of PyTorch's output;
    `top1_agreement` is the share of photographs whose top class must be PyTorch's; a class whose
    PyTorch score is within `tie` of the output's range of the best one counts as the top class.
    """

    relative_error: float
    tie: float
    top1_agreement: float = 1.0


THRESHOLDS: Mapping[Precision, Thresholds] = {
    Precision.FP32: Thresholds(relative_error=1e-4, tie=1e-6),
    # half precision resolves 2^-11 = 5e-4 of a value: closer scores than twice that are tied
    Precision.FP16: Thresholds(relative_error=2e-2, tie=1e-3),
}


@dataclass(frozen=True)
class Reference:
    """PyTorch's answers for every stage, by the keys of `reference.npz`."""

    arrays: Mapping[str, NDArray[Any]]

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read the file; raises `BundleError` if it is not whole."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls({name: archive[name] for name in archive.files})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(f"{path}: not a readable reference file") from error

    def real(self, stage: str) -> NDArray[np.bool_]:
        """Which samples of a stage are photographs, shape (samples,)."""
        return np.asarray(self._get(f"{stage}/real"), np.bool_)

    def inputs(self, stage: str, tensor: TensorSpec) -> NDArray[Any]:
        """Samples of an input in the layout and dtype of `tensor`, shape (samples, *shape)."""
        stored = self._get(f"{stage}/input/{tensor.name}")
        if tensor.layout == "NHWC":
            stored = np.moveaxis(stored, 2, -1)
        return stored.astype(tensor.dtype)

    def outputs(self, stage: str, tensor: TensorSpec) -> NDArray[Any]:
        """PyTorch's answers in the layout of `tensor`, shape (samples, *shape)."""
        stored = self._get(f"{stage}/output/{tensor.name}")
        return np.moveaxis(stored, 2, -1) if tensor.layout == "NHWC" else stored

    def _get(self, key: str) -> NDArray[Any]:
        try:
            return self.arrays[key]
        except KeyError:
            raise BundleError(f"the reference file has no '{key}'") from None


def check_bundle(
    bundle: Bundle,
    *,
    threads: int = 1,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Iterator[tuple[Artifact, Parity]]:
    """Check every checksum, then run every artifact that this machine can execute.

    Raises:
        ArtifactChanged: a file is not the one that was exported.
        BundleError: a file is missing or the reference cannot be read.
    """
    bundle.check_files()
    reference = Reference.load(bundle.path / bundle.manifest.reference)
    total = len(bundle.manifest.artifacts)
    for number, artifact in enumerate(bundle.manifest.artifacts, start=1):
        progress(f"{artifact.stage} as {artifact.format}-{artifact.precision}", number, total)
        yield artifact, check_artifact(bundle.file(artifact), artifact, reference, threads=threads)


def check_artifact(
    path: Path, artifact: Artifact, reference: Reference, *, threads: int = 1
) -> Parity:
    """Run an artifact with the first engine that can, and judge its answers.

    An artifact that no engine here can run is `NOT_EXECUTED`; one whose engine refuses it is
    `FAILED`, with the engine's reason.
    """
    engines = engines_for(artifact.format)
    if not engines:
        return Parity(
            status=ParityStatus.NOT_EXECUTED, reason=f"no engine for {artifact.format} here"
        )
    try:
        with open_session(engines[0], path, artifact.inputs, artifact.outputs, threads) as session:
            answers = _answers(session, artifact, reference)
    except EngineError as error:
        return Parity(status=ParityStatus.FAILED, engine=engines[0], reason=str(error))
    return judge(artifact, reference, answers, engines[0])


def judge(artifact: Artifact, reference: Reference, answers: Arrays, engine: str) -> Parity:
    """Compare answers (by output name, stacked over samples) with PyTorch's."""
    thresholds = THRESHOLDS[artifact.precision]
    real = reference.real(artifact.stage)
    figures, agreement = [], None
    for tensor in artifact.outputs:
        expected = reference.outputs(artifact.stage, tensor)
        figures.append(compare(tensor.name, expected, answers[tensor.name]))
        if tensor.layout == "NC":
            agreement = top1_agreement(expected[real], answers[tensor.name][real], thresholds.tie)
    reasons = [
        f"{f.output}: relative error {f.relative_error:.1e} over {thresholds.relative_error:.0e}"
        for f in figures
        if not f.relative_error <= thresholds.relative_error
    ]
    if agreement is not None and agreement < thresholds.top1_agreement:
        reasons.append(f"top-1 agreement {agreement:.0%} on {int(real.sum())} photographs")
    return Parity(
        status=ParityStatus.FAILED if reasons else ParityStatus.OK,
        engine=engine,
        outputs=tuple(figures),
        top1_agreement=agreement,
        images=int(real.sum()),
        reason="; ".join(reasons) or None,
    )


def compare(name: str, expected: NDArray[Any], got: NDArray[Any]) -> OutputParity:
    """Measure one output over all samples; not-a-number anywhere counts as an infinite error."""
    difference = got.astype(np.float64) - expected.astype(np.float64)
    if not np.isfinite(difference).all():
        return OutputParity(
            output=name, max_abs_error=math.inf, relative_error=math.inf, snr_db=None
        )
    largest = float(np.abs(difference).max())
    span = float(expected.max() - expected.min())
    noise = float(np.square(difference).sum())
    signal = float(np.square(expected.astype(np.float64)).sum())
    return OutputParity(
        output=name,
        max_abs_error=largest,
        relative_error=largest / span if span else (math.inf if largest else 0.0),
        snr_db=10 * math.log10(signal / noise) if noise and signal else None,
    )


def top1_agreement(expected: NDArray[Any], got: NDArray[Any], tie: float) -> float | None:
    """Share of samples whose best class is PyTorch's; None without samples.

    A class that PyTorch scores within `tie` of the sample's range of its best counts as its best.
    """
    if not len(expected):
        return None
    scores = expected.reshape(len(expected), -1).astype(np.float64)
    chosen = got.reshape(len(got), -1).argmax(axis=1)
    allowed = tie * (scores.max(axis=1) - scores.min(axis=1))
    lost = scores.max(axis=1) - scores[np.arange(len(scores)), chosen]
    return float((lost <= allowed).mean())


def _answers(session: Session, artifact: Artifact, reference: Reference) -> Arrays:
    inputs = {t.name: reference.inputs(artifact.stage, t) for t in artifact.inputs}
    count = len(reference.real(artifact.stage))
    rows = [session({name: inputs[name][i] for name in inputs}) for i in range(count)]
    return {t.name: np.stack([row[t.name] for row in rows]) for t in artifact.outputs}

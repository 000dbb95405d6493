"""Is an artifact still what PyTorch computed? Numpy only, so that any board can answer.

A bundle carries PyTorch's answers (`reference.npz`); an artifact is run on the same inputs and
held to thresholds. The same code is the gate of `export` and the check of `verify`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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

_STACKED_IMAGES = 5
_SMALLEST = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Thresholds:
    """What an artifact must reach to pass.

    `relative_error` bounds the largest absolute error of a sample over the range of PyTorch's
    output for that sample;
    `top1_agreement` is the share of photographs whose top class must be PyTorch's; a class whose
    PyTorch score is within `tie` of its image's range of the best one counts as the top class.
    """

    relative_error: float
    tie: float
    top1_agreement: float = 1.0


THRESHOLDS: Mapping[Precision, Thresholds] = {
    Precision.FP32: Thresholds(relative_error=1e-4, tie=1e-6),
    # half precision resolves 2^-11 = 5e-4 of a value: closer scores than twice that are tied
    Precision.FP16: Thresholds(relative_error=2e-2, tie=1e-3),
    # largest errors so far: 8e-3 of trained weights (EfficientNet-Lite0, ONNX), 7e-2 of random ones
    # (mobilevitv2_050, ONNX); two scores that are each off by the former swap within 2e-2
    Precision.INT8: Thresholds(relative_error=1e-1, tie=2e-2),
}


@dataclass(frozen=True)
class Reference:
    """PyTorch's answers for every stage, by the keys of `reference.npz`."""

    arrays: Mapping[str, NDArray[Any]]

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read the file; raises `BundleError` if it is not whole."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                return cls({name: archive[name] for name in archive.files})
        except Exception as error:  # numpy and zipfile raise anything over damaged bytes
            raise BundleError(f"{path}: not a readable reference file") from error

    def real(self, stage: str) -> NDArray[np.bool_]:
        """Which samples of a stage are photographs, shape (samples,)."""
        real = self._get(f"{stage}/real")
        if real.dtype != np.bool_ or real.ndim != 1 or not len(real):
            raise BundleError(f"'{stage}/real' of the reference file is no list of yes and no")
        return real

    def inputs(self, stage: str, tensor: TensorSpec) -> NDArray[Any]:
        """Samples of an input in the layout and dtype of `tensor`, shape (samples, *shape).

        Like `outputs`, raises `BundleError` if the file has none, or of another shape or number.
        """
        return self._samples(stage, "input", tensor).astype(tensor.dtype)

    def samples(self, stage: str, tensors: Sequence[TensorSpec]) -> list[dict[str, NDArray[Any]]]:
        """All inputs by name, sample by sample; raises as `inputs` does."""
        stacked = {tensor.name: self.inputs(stage, tensor) for tensor in tensors}
        count = len(self.real(stage))
        return [{name: rows[i] for name, rows in stacked.items()} for i in range(count)]

    def outputs(self, stage: str, tensor: TensorSpec) -> NDArray[Any]:
        """PyTorch's answers in the layout of `tensor`, shape (samples, *shape)."""
        return self._samples(stage, "output", tensor)

    def array(self, key: str) -> NDArray[Any]:
        """Return an array by its key; raises `BundleError` if the file has none such."""
        return self._get(key)

    def _samples(self, stage: str, side: str, tensor: TensorSpec) -> NDArray[Any]:
        key = f"{stage}/{side}/{tensor.name}"
        stored = self._get(key)
        if tensor.layout == "NHWC" and stored.ndim == _STACKED_IMAGES:
            stored = np.moveaxis(stored, 2, -1)
        expected = (len(self.real(stage)), *tensor.shape)
        if stored.shape != expected or stored.dtype.kind not in "fiu":
            raise BundleError(
                f"'{key}' of the reference file is {stored.dtype} of shape {stored.shape}, "
                f"not numbers of shape {expected}"
            )
        return stored

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
    """Compare answers (by output name, stacked over samples) with PyTorch's.

    An output with a value that is not finite fails; no figures are given for it, and its `reason`
    names it. Outputs of layout NC are scores of classes, image by image where a sample has
    several: their top class must agree on the photographs, and without photographs nothing is
    proved, which fails too.
    """
    thresholds = THRESHOLDS[artifact.precision]
    real = reference.real(artifact.stage)
    images = int(real.sum()) * max(
        [t.shape[0] for t in artifact.outputs if t.layout == "NC"] or [1]
    )
    figures: list[OutputParity] = []
    reasons: list[str] = []
    agreements: list[float] = []
    for tensor in artifact.outputs:
        expected, got = reference.outputs(artifact.stage, tensor), answers[tensor.name]
        if not (np.isfinite(expected).all() and np.isfinite(got).all()):
            whose = "the artifact" if np.isfinite(expected).all() else "PyTorch"
            reasons.append(f"{tensor.name}: not all values of {whose} are finite")
            continue
        figures.append(compare(tensor.name, expected, got))
        if tensor.layout == "NC" and real.any():
            agreements.append(top1_agreement(expected[real], got[real], thresholds.tie))
        elif tensor.layout == "NC":
            reasons.append(f"{tensor.name}: no photographs to compare the top class on")
    agreement = min(agreements, default=None)
    reasons += _misses(figures, agreement, thresholds, images)
    return Parity(
        status=ParityStatus.FAILED if reasons else ParityStatus.OK,
        engine=engine,
        outputs=tuple(figures),
        top1_agreement=agreement,
        images=images,
        reason="; ".join(reasons) or None,
    )


def compare(name: str, expected: NDArray[Any], got: NDArray[Any]) -> OutputParity:
    """Measure one output over all samples (samples, ...); one shape, all values finite.

    Each sample is held to its own range, so that a loud one does not excuse a quiet one. A
    constant answer of PyTorch's has no range: its magnitude stands in for it, and 1 for the
    magnitude of zeros. Where a sample is a single number, the largest magnitude of all samples
    does: a score near zero is no exacter than others. The figures are finite, so that JSON can
    hold them.

    Raises:
        ValueError: the shapes differ, there are no values, or one is not finite.
    """
    if expected.shape != got.shape or not expected.size:
        raise ValueError(f"'{name}': cannot compare shapes {expected.shape} and {got.shape}")
    truth = expected.astype(np.float64)
    difference = got.astype(np.float64) - truth
    if not np.isfinite(difference).all():
        raise ValueError(f"'{name}': values that are not finite cannot be compared")
    errors = np.abs(difference).reshape(len(difference), -1).max(axis=1)
    rows = truth.reshape(len(truth), -1)
    if rows.shape[1] == 1:
        spans = np.full(len(rows), np.abs(rows).max() or 1.0)
    else:
        spans = np.array([np.ptp(row) or np.abs(row).max() or 1.0 for row in rows])
    noise = float(np.square(difference).sum())
    signal = max(float(np.square(truth).sum()), _SMALLEST)
    return OutputParity(
        output=name,
        max_abs_error=float(errors.max()),
        relative_error=float((errors / spans).max()),
        snr_db=10 * (math.log10(signal) - math.log10(noise)) if noise else None,
    )


def top1_agreement(expected: NDArray[Any], got: NDArray[Any], tie: float) -> float:
    """Share of images, of which there is at least one, whose best class is PyTorch's.

    Scores are (..., K), each row of K an image's. Near ties agree: a class counts as PyTorch's best
    if PyTorch scores it within `tie` of that image's range of scores below its best.
    """
    scores = expected.reshape(-1, expected.shape[-1]).astype(np.float64)
    chosen = got.reshape(-1, got.shape[-1]).argmax(axis=1)
    allowed = tie * (scores.max(axis=1) - scores.min(axis=1))
    lost = scores.max(axis=1) - scores[np.arange(len(scores)), chosen]
    return float((lost <= allowed).mean())


def _misses(
    figures: list[OutputParity], agreement: float | None, limits: Thresholds, photographs: int
) -> list[str]:
    misses = [
        f"{f.output}: relative error {f.relative_error:.1e} over {limits.relative_error:.0e}"
        for f in figures
        if not f.relative_error <= limits.relative_error
    ]
    if agreement is not None and not agreement >= limits.top1_agreement:
        misses.append(f"top-1 agreement {agreement:.0%} on {photographs} photographs")
    return misses


def _answers(session: Session, artifact: Artifact, reference: Reference) -> Arrays:
    rows = [session(sample) for sample in reference.samples(artifact.stage, artifact.inputs)]
    return {t.name: np.stack([row[t.name] for row in rows]) for t in artifact.outputs}

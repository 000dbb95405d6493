"""The Core ML packages of a bundle: what half precision does to them, and against PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phoneward.bundle import Artifact, Bundle
from phoneward.errors import PhonewardError
from phoneward.export.blame.compare import blame
from phoneward.export.blame.keep import Proposal
from phoneward.export.blame.rebuild import Rebuilt
from phoneward.export.blame.report import BlameReport
from phoneward.export.blame.settle import proposal_of
from phoneward.runtime.engines.mil.numerics import Numerics
from phoneward.runtime.engines.mil.precision import PrecisionReport, precision_of
from phoneward.runtime.engines.mil.program import Program
from phoneward.runtime.engines.mil.threads import torch_threads
from phoneward.runtime.parity import THRESHOLDS, Reference

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ArtifactBlame:
    """One package. `comparison` is None where `unavailable` says why there is none.

    `precision` is over all samples of the reference, the comparison on the first photograph.
    `proposal` says what to keep in single precision of a half-precision package whose outputs
    are off by more than its gate allows.
    """

    artifact: Artifact
    precision: PrecisionReport
    comparison: BlameReport | None
    unavailable: str | None = None
    proposal: Proposal | None = None


def blame_bundle(
    bundle: Bundle,
    weights: Path | None = None,
    threads: int = 1,
    numerics: Numerics = Numerics.DECLARED,
    progress: Progress = lambda step, done, total: None,
) -> Iterator[ArtifactBlame]:
    """Look into every Core ML package of a bundle, whose files are taken to be unchanged.

    Args:
        bundle: the bundle.
        weights: the file that the bundle's weights came from, if they came from a file.
        threads: how many PyTorch may use.
        numerics: what is held against float32.
        progress: called with a step, its number and the number of steps.

    Raises:
        EngineError: a package cannot be run.
        BundleError: the reference cannot be read.
    """
    packages = [a for a in bundle.manifest.artifacts if a.format == "coreml"]
    reference = Reference.load(bundle.path / bundle.manifest.reference)
    rebuilt = Rebuilt(bundle, weights)
    for number, artifact in enumerate(packages, start=1):
        step = f"blame of {artifact.stage} as {artifact.format}-{artifact.precision}"
        progress(step, number, len(packages))
        with torch_threads(threads):
            yield _look(bundle, artifact, reference, rebuilt, numerics)


def _look(
    bundle: Bundle,
    artifact: Artifact,
    reference: Reference,
    rebuilt: Rebuilt,
    numerics: Numerics,
) -> ArtifactBlame:
    real = reference.real(artifact.stage)
    samples = reference.samples(artifact.stage, artifact.inputs)
    path = bundle.file(artifact)
    precision = precision_of(Program.load(path), samples, numerics)
    off = max(precision.outputs.values(), default=0.0)
    within = off <= THRESHOLDS[artifact.precision].relative_error
    # what helps is measured with sums in float32
    asked = numerics is Numerics.DECLARED and not within
    proposal = proposal_of(path, artifact, reference) if asked else None
    try:
        program = rebuilt.program(artifact)
    except PhonewardError as error:
        return ArtifactBlame(artifact, precision, None, str(error), proposal)
    chosen = samples[int(np.argmax(real))]
    comparison = blame(path, program, [chosen[t.name] for t in artifact.inputs])
    return ArtifactBlame(artifact, precision, comparison, proposal=proposal)

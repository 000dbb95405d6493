"""The kernels that a bundle carries, so that predicting its latency needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from phoneward.errors import BundleError
from phoneward.profiles.kernels import Kernel, StageKernels
from phoneward.runtime.artifacts import check_unchanged

if TYPE_CHECKING:
    from phoneward.bundle import Artifact, Bundle
    from phoneward.names import Precision


def kernels_in(bundle: Bundle, artifact: Artifact) -> StageKernels:
    """Read the work of the program that an artifact was made from.

    Raises:
        BundleError: the bundle carries none, as it is older than they are, or they cannot be read.
        ArtifactChanged: the file is not what was exported.
    """
    if artifact.kernels is None or artifact.kernels_sha256 is None:
        raise BundleError(
            f"{bundle.path} does not say what {artifact.path} computes: it was exported by an "
            f"older Phoneward; run `phoneward export {bundle.manifest.model}` again"
        )
    file = bundle.path / artifact.kernels
    check_unchanged(file, artifact.kernels_sha256)
    try:
        return StageKernels.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise BundleError(f"{file} cannot be read as kernels: {error}") from error


def kernels_if_stated(bundle: Bundle, artifact: Artifact) -> tuple[Kernel, ...]:
    """Read the kernels of an artifact; none where the bundle is older than they are.

    Raises:
        BundleError, ArtifactChanged: as `kernels_in`, of a bundle that carries them.
    """
    return kernels_in(bundle, artifact).kernels if artifact.kernels else ()


def stages_in(bundle: Bundle, format_name: str, precision: Precision) -> tuple[StageKernels, ...]:
    """Read the work of every stage as one format has it, in the order of the manifest's stages.

    Raises:
        BundleError: a stage was not exported so, or as `kernels_in`.
    """
    order = {stage.name: number for number, stage in enumerate(bundle.manifest.stages)}
    made = [
        artifact
        for artifact in bundle.manifest.artifacts
        if artifact.format == format_name and artifact.precision == precision
    ]
    if {artifact.stage for artifact in made} != set(order):
        raise BundleError(f"{bundle.path} was not exported whole as {format_name}-{precision}")
    return tuple(kernels_in(bundle, one) for one in sorted(made, key=lambda a: order[a.stage]))

"""What a bundle knows of an artifact, put beside what a place found out about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from phoneward.profiles.report.schema import Emulated, Measured, StageReport

if TYPE_CHECKING:
    from phoneward.bundle import Artifact
    from phoneward.profiles.kernels import Kernel


@dataclass(frozen=True)
class Ran:
    """What ran an artifact, and how; fields as of `StageReport`, None where a place cannot tell."""

    engine: str
    engine_version: str | None = None
    delegate: str | None = None
    unit: str | None = None
    threads: int | None = None
    pinned_cores: tuple[int, ...] = ()


def stage_report(
    artifact: Artifact,
    ran: Ran,
    result: Measured | Emulated,
    kernels: tuple[Kernel, ...] = (),
) -> StageReport:
    """Report one artifact: its bytes, parity and delegation from the bundle, the rest as given."""
    return StageReport(
        stage=artifact.stage,
        format=artifact.format,
        precision=artifact.precision,
        engine=ran.engine,
        engine_version=ran.engine_version,
        delegate=ran.delegate,
        unit=ran.unit,
        threads=ran.threads,
        pinned_cores=ran.pinned_cores,
        artifact_sha256=artifact.sha256,
        artifact_bytes=artifact.bytes,
        parity=artifact.parity,
        delegation=artifact.delegation,
        kernels=kernels,
        result=result,
    )

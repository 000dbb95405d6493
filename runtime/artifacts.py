"""Which artifacts of a bundle to run, with which engine, and that they are the exported ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phoneward.bundle import sha256_of
from phoneward.errors import ArtifactChanged, BundleError, EngineError
from phoneward.runtime.engines import ENGINES, engines_for, format_of, open_session, why_not

if TYPE_CHECKING:
    from phoneward.bundle import Artifact, Bundle
    from phoneward.names import Precision
    from phoneward.runtime.engines.session import Session


@dataclass(frozen=True)
class Wanted:
    """What a user asks of an artifact; `None` leaves it open. An engine settles the format."""

    engine: str | None = None
    format_name: str | None = None
    precision: Precision | None = None


def fitting(bundle: Bundle, wanted: Wanted) -> list[Artifact]:
    """Return the artifacts of all stages that are as wanted, in the manifest's order.

    Raises:
        UnknownName: no such engine.
    """
    format_name = wanted.format_name
    if wanted.engine is not None:
        format_name = format_name or format_of(wanted.engine)
    return [
        artifact
        for artifact in bundle.manifest.artifacts
        if format_name in (None, artifact.format) and wanted.precision in (None, artifact.precision)
    ]


def choose(
    bundle: Bundle, candidates: Sequence[Artifact], engine: str | None
) -> tuple[Artifact, str]:
    """Return the candidate to open and its engine; without one asked for, the first that can run.

    Raises:
        BundleError: there is no candidate, or none in the engine's format.
        EngineError: there is one, and no engine here can run it.
    """
    if engine is None:
        able = {name: a for a in reversed(candidates) for name in engines_for(a.format)}
        if able:
            first = min(able, key=list(ENGINES).index)
            return able[first], first
    for artifact in candidates:
        if engine is not None and format_of(engine) == artifact.format:
            return artifact, engine
    if not candidates or engine is not None:
        has = dict.fromkeys(f"{a.format}-{a.precision}" for a in bundle.manifest.artifacts)
        raise BundleError(f"{bundle.path} has no such artifact; it has: {', '.join(has)}")
    reasons = {e: why_not(e) for e in ENGINES if format_of(e) in {a.format for a in candidates}}
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise EngineError(f"no engine here can run {bundle.path} ({listed})")


def choose_set(
    bundle: Bundle, stages: Sequence[str], wanted: Wanted
) -> tuple[dict[str, Artifact], str]:
    """Return an artifact for each stage, all of one format and precision, and their engine.

    Raises:
        BundleError: a stage is missing, or no format and precision has an artifact of each.
        UnknownName, EngineError: as `fitting` and `choose`.
    """
    for stage in stages:
        bundle.stage(stage)
    sets: dict[tuple[str, str], dict[str, Artifact]] = {}
    for artifact in fitting(bundle, wanted):
        kind = sets.setdefault((artifact.format, artifact.precision), {})
        kind.setdefault(artifact.stage, artifact)
    whole = {kind: found for kind, found in sets.items() if set(stages) <= set(found)}
    if sets and not whole:
        (format_name, precision), found = next(iter(sets.items()))
        lacking = ", ".join(f"'{stage}'" for stage in stages if stage not in found)
        raise BundleError(f"{bundle.path}: {format_name}-{precision} lacks the stage {lacking}")
    first, engine = choose(bundle, [found[stages[0]] for found in whole.values()], wanted.engine)
    found = whole[first.format, first.precision]
    return {stage: found[stage] for stage in stages}, engine


def open_artifact(bundle: Bundle, artifact: Artifact, engine: str, threads: int) -> Session:
    """Open an artifact after holding it against its checksum.

    Raises:
        BundleError, ArtifactChanged: it is missing, or not what was exported.
        EngineError, MissingExtra: it cannot be run here.
    """
    path = bundle.file(artifact)
    check_unchanged(path, artifact.sha256)
    return open_session(engine, path, artifact.inputs, artifact.outputs, threads)


def check_unchanged(path: Path, expected: str) -> None:
    """Raise `BundleError` if a file is missing, `ArtifactChanged` if it has another SHA-256."""
    # engines trust what they read: some end the process over damaged bytes
    if not path.exists():
        raise BundleError(f"{path} is missing from the bundle")
    if sha256_of(path) != expected:
        raise ArtifactChanged(path)

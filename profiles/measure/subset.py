"""The part of a bundle that a machine is sent: the wanted artifacts and what describes them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phoneward.bundle import MANIFEST
from phoneward.errors import BundleError
from phoneward.runtime.artifacts import check_unchanged, fitting
from phoneward.runtime.engines import ENGINES, format_of

if TYPE_CHECKING:
    from phoneward.bundle import Artifact, Bundle, Manifest
    from phoneward.profiles.measure import Request


@dataclass(frozen=True)
class Subset:
    """A smaller bundle that need not exist as a folder.

    Attributes:
        manifest: of the smaller bundle.
        files: local path of each file, by its path in the bundle.
    """

    manifest: Manifest
    files: dict[str, Path]

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """What is to be profiled."""
        return self.manifest.artifacts

    @property
    def size(self) -> int:
        """Bytes of all files and the manifest."""
        return sum(path.stat().st_size for path in self.files.values()) + len(self.text)

    @property
    def text(self) -> bytes:
        """The manifest as it is written to `bundle.json`."""
        return self.manifest.model_dump_json().encode()

    def members(self) -> list[tuple[str, bytes | Path]]:
        """Every file by its path, the manifest last: without it there is no bundle."""
        return [*self.files.items(), (MANIFEST, self.text)]


def wanted_artifacts(
    request: Request, formats: Collection[str], place: str
) -> tuple[Artifact, ...]:
    """Return the artifacts that are asked for and of a format that the place can run.

    Raises:
        BundleError: a stage is missing, or nothing is left; says what there is.
    """
    bundle = request.bundle
    for stage in request.stages:
        bundle.stage(stage)
    chosen = tuple(
        artifact
        for artifact in fitting(bundle, request.wanted)
        if artifact.format in formats and (not request.stages or artifact.stage in request.stages)
    )
    if not chosen:
        has = dict.fromkeys(f"{a.format}-{a.precision}" for a in bundle.manifest.artifacts)
        raise BundleError(
            f"{bundle.path} has no such artifact for {place}, which runs "
            f"{', '.join(sorted(formats))}; it has: {', '.join(has)}"
        )
    return chosen


def subset_of(bundle: Bundle, chosen: Collection[Artifact]) -> Subset:
    """Leave out the other artifacts and all logs.

    Raises:
        BundleError, ArtifactChanged: a file is missing, or not what was exported.
    """
    manifest = bundle.manifest
    kept = tuple(
        artifact.model_copy(update={"log": None, "log_sha256": None})
        for artifact in manifest.artifacts
        if artifact in chosen
    )
    formats = {(artifact.format, artifact.precision) for artifact in kept}
    clips = tuple(clip for clip in manifest.clips if (clip.format, clip.precision) in formats)
    smaller = manifest.model_copy(update={"artifacts": kept, "clips": clips, "price": None})
    found: dict[str, Path] = {}
    for relative, sha256 in smaller.checksums():
        path = bundle.path / relative
        check_unchanged(path, sha256)
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        found.update({p.relative_to(bundle.path).as_posix(): p for p in inside})
    return Subset(smaller, found)


def formats_read_by(able: Callable[[str], bool]) -> set[str]:
    """Formats of the engines that `able` holds of."""
    return {format_of(engine) for engine in ENGINES if able(engine)}

"""From a request to a bundle on disk: convert, prove, and write whole or not at all."""

from __future__ import annotations

import copy
import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoneward import __version__
from phoneward.bundle import (
    MANIFEST,
    Artifact,
    Bundle,
    Manifest,
    Parity,
    sha256_of,
    size_of,
)
from phoneward.errors import ConversionError, ParityError, PhonewardError
from phoneward.export.backends import BACKENDS, About, Graph, Lowered
from phoneward.export.cache import Cache, default_root, key_of, versions
from phoneward.export.models import find
from phoneward.export.recipe import Recipe
from phoneward.export.request import ExportRequest
from phoneward.export.weights import WeightsFile, load, resolve
from phoneward.names import ParityStatus
from phoneward.quiet import noise_to
from phoneward.staging import staged_output

if TYPE_CHECKING:
    from torch import nn

    from phoneward.bundle import Stage

REFERENCE = "reference.npz"
LABELS = "labels.txt"
_ENGINE_DISTRIBUTIONS = ("ai-edge-litert", "executorch", "onnxruntime", "numpy", "pillow")

# what the disk of the output answers; any other OSError during a conversion is the converter's
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Progress = Callable[[str, int, int], None]


class GateFailed(ParityError):
    """At least one artifact missed a parity threshold; `artifacts` holds every verdict."""

    def __init__(self, artifacts: tuple[Artifact, ...]) -> None:
        self.artifacts = artifacts
        failed = [f"{a.stage} {a.format}-{a.precision}" for a in artifacts if _failed(a)]
        super().__init__(f"parity with PyTorch failed: {', '.join(failed)}; no bundle was written")


@dataclass(frozen=True)
class Options:
    """How to export: replace an existing folder, use the cache, threads for the parity runs."""

    force: bool = False
    use_cache: bool = True
    threads: int = 2


def export_bundle(
    request: ExportRequest,
    destination: Path,
    options: Options = Options(),
    progress: Progress = lambda step, done, total: None,
) -> Bundle:
    """Make every artifact of the request, prove each against PyTorch, write the bundle.

    `progress` is called with the name of a step, its number and the number of steps.

    Raises:
        GateFailed: an artifact that this machine can execute misses a threshold.
        ConversionError: a converter refused; its log stays in the cache folder.
        OutputExists, OutputError, WeightsError: as their names say. No bundle is left behind.
    """
    with staged_output(destination, force=options.force) as folder:
        total = len(request.recipes) * len(request.model.stages) + 1
        progress(f"weights: {request.weights}", 0, total)
        job = _Job(request, resolve(request.weights, request.model), folder, options)
        progress("reference answers of PyTorch", 0, total)
        job.make_reference()
        artifacts = []
        for number, (stage, recipe) in enumerate(job.tasks, start=1):
            progress(f"{stage.name} as {recipe}", number, total)
            artifacts.append(job.make_artifact(stage, recipe))
        if any(_failed(artifact) for artifact in artifacts):
            raise GateFailed(tuple(artifacts))
        manifest = job.manifest(tuple(artifacts))
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return Bundle.open(destination)


def _failed(artifact: Artifact) -> bool:
    return artifact.parity.status is ParityStatus.FAILED


@dataclass
class _Job:
    """One export under way in a staging folder. The model is built when first needed."""

    request: ExportRequest
    weights: WeightsFile
    folder: Path
    options: Options
    _modules: dict[str, nn.Module] = field(default_factory=dict)
    _labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        # the request's own card: its knobs may be turned
        self.card, self.family = self.request.model, find(self.request.model.name)[1]
        self.cache = Cache(default_root()) if self.options.use_cache else None
        self.tasks: list[tuple[Stage, Recipe]] = [
            (stage, recipe) for recipe in self.request.recipes for stage in self.card.stages
        ]
        (self.folder / "artifacts").mkdir()
        (self.folder / "logs").mkdir()

    def modules(self) -> Mapping[str, nn.Module]:
        if not self._modules:
            with noise_to(self.folder / "logs" / "build.log"):
                self._modules = self.family.build(self.card, load(self.weights))
        return self._modules

    def make_reference(self) -> None:
        """Put the reference answers and the labels into the folder."""
        from phoneward.export.reference import write_reference

        key = key_of({"kind": "reference", **self._identity(("torch", "timm", "numpy", "pillow"))})
        if self.cache is None or self.cache.take(key, self.folder) is None:
            modules = self.modules()
            examples = self.family.examples(self.card, modules)
            write_reference(modules, self.card.stages, examples, self.folder / REFERENCE)
            names = [REFERENCE]
            if labels := self.family.labels(self.card):
                (self.folder / LABELS).write_text("\n".join(labels) + "\n", encoding="utf-8")
                names.append(LABELS)
            if self.cache is not None:
                self.cache.put(key, self.folder, names, {})
        if (self.folder / LABELS).exists():
            self._labels = tuple((self.folder / LABELS).read_text(encoding="utf-8").splitlines())

    def make_artifact(self, stage: Stage, recipe: Recipe) -> Artifact:
        """Take an artifact from the cache, or convert it and measure its parity."""
        backend = BACKENDS.get(recipe.format)
        rewrites = self.family.rewrites(self.card, recipe)
        identity = self._identity((*backend.distributions, *_ENGINE_DISTRIBUTIONS, "timm"))
        key = key_of({"recipe": recipe, "rewrites": rewrites, "stage": stage.name, **identity})
        if self.cache is not None and (record := self.cache.take(key, self.folder)) is not None:
            artifact = Artifact.model_validate(record)
            parity = artifact.parity.model_copy(update={"cached": True})
            return artifact.model_copy(update={"parity": parity})
        path = f"artifacts/{stage.name}-{recipe.precision}{backend.suffix}"
        log = f"logs/{stage.name}-{recipe}.log"
        lowered, applied = self._lower(stage, recipe, rewrites)
        artifact = Artifact(
            stage=stage.name,
            format=recipe.format,
            precision=recipe.precision,
            path=path,
            bytes=size_of(self.folder / path),
            sha256=sha256_of(self.folder / path),
            inputs=lowered.inputs,
            outputs=lowered.outputs,
            parity=Parity(status=ParityStatus.NOT_EXECUTED, reason="not measured yet"),
            delegation=lowered.delegation,
            target=recipe.target,
            rewrites=applied,
            log=log,
            log_sha256=sha256_of(self.folder / log),
        )
        artifact = artifact.model_copy(update={"parity": self._parity(artifact)})
        # anew: the parity run wrote to the log too
        artifact = artifact.model_copy(update={"log_sha256": sha256_of(self.folder / log)})
        if self.cache is not None and not _failed(artifact):
            self.cache.put(key, self.folder, (path, log), artifact.model_dump(mode="json"))
        return artifact

    def manifest(self, artifacts: tuple[Artifact, ...]) -> Manifest:
        """Describe the folder as it is now."""
        distributions = {"torch", "timm", *_ENGINE_DISTRIBUTIONS}
        for artifact in artifacts:
            distributions.update(BACKENDS.get(artifact.format).distributions)
        labels = self.folder / LABELS
        return Manifest(
            model=self.card.name,
            family=self.card.family,
            weights=self.weights.record,
            devices=self.request.devices,
            stages=self.card.stages,
            artifacts=artifacts,
            labels=LABELS if labels.exists() else None,
            labels_sha256=sha256_of(labels) if labels.exists() else None,
            reference=REFERENCE,
            reference_sha256=sha256_of(self.folder / REFERENCE),
            tools={"phoneward": __version__, **versions(distributions)},
            constants=self.family.constants(self.card),
        )

    def _identity(self, distributions: tuple[str, ...]) -> dict[str, Any]:
        return {
            "model": self.card,
            "weights": self.weights.record.model_dump(),
            "tools": versions(distributions),
        }

    def _lower(
        self, stage: Stage, recipe: Recipe, rewrites: tuple[str, ...]
    ) -> tuple[Lowered, tuple[str, ...]]:
        """Convert; return what was written and the rewrites that found something to change."""
        from phoneward.export.rewrites import apply_all

        backend = BACKENDS.get(recipe.format)
        module = copy.deepcopy(self.modules()[stage.name])
        log = self.folder / "logs" / f"{stage.name}-{recipe}.log"
        out = self.folder / "artifacts" / f"{stage.name}-{recipe.precision}{backend.suffix}"
        try:
            with noise_to(log):
                places = apply_all(module, rewrites)
                lowered = backend.lower(Graph(module, stage, self._about()), recipe, out)
            return lowered, tuple(name for name in rewrites if places.get(name))
        except PhonewardError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise
            kept = _keep(log, f"{self.card.name}-{log.name}")
            raise ConversionError(recipe.format, _first_line(error), kept) from error

    def _about(self) -> About:
        weights = self.weights.record
        return About(
            title=self.card.name,
            description=f"{self.card.name}; weights: {weights.kind}, {weights.source}",
            licence=weights.licence or "as the weights",
            version=__version__,
            labels=self._labels,
        )

    def _parity(self, artifact: Artifact) -> Parity:
        from phoneward.runtime.parity import Reference, check_artifact

        with noise_to(self.folder / (artifact.log or "")):
            return check_artifact(
                self.folder / artifact.path,
                artifact,
                Reference.load(self.folder / REFERENCE),
                threads=self.options.threads,
            )


def _keep(log: Path, name: str) -> Path | None:
    """Save a log from the staging folder, which is about to go; None if that fails too."""
    kept = default_root() / "failed" / name
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(log.read_bytes())
    except OSError:
        return None
    return kept


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

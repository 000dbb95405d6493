"""From a request to a bundle on disk: convert, prove, and write whole or not at all."""

from __future__ import annotations

import copy
import dataclasses
import errno
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoneward import __version__
from phoneward.bundle import (
    MANIFEST,
    Artifact,
    Bundle,
    ClipParity,
    Manifest,
    Parity,
    Price,
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
    """An artifact or a clip missed a parity threshold; every verdict is in `artifacts`, `clips`.

    Clips are tracked only with artifacts that agree stage by stage.
    """

    def __init__(
        self, artifacts: tuple[Artifact, ...], clips: tuple[ClipParity, ...] = ()
    ) -> None:
        self.artifacts, self.clips = artifacts, clips
        failed = [f"{a.stage} {a.format}-{a.precision}" for a in artifacts if _failed(a)]
        failed += [f"clip {c.format}-{c.precision}" for c in clips if _clip_failed(c)]
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
        GateFailed: an artifact that this machine can execute misses a threshold, or the
            artifacts of one format and precision together lose the clip.
        ConversionError: a converter refused; its log stays in the cache folder.
        OutputExists, OutputError, WeightsError: as their names say. No bundle is left behind.
    """
    with staged_output(destination, force=options.force) as folder:
        progress(f"weights: {request.weights}", 0, len(request.recipes))
        job = _Job(request, resolve(request.weights, request.model), folder, options)
        total = len(job.tasks) + len(job.clip_recipes) + job.has_price + 1
        progress("reference answers of PyTorch", 0, total)
        job.make_reference()
        artifacts = []
        for number, (stage, recipe) in enumerate(job.tasks, start=1):
            progress(f"{stage.name} as {recipe}", number, total)
            artifacts.append(job.make_artifact(stage, recipe))
        if any(_failed(artifact) for artifact in artifacts):
            raise GateFailed(tuple(artifacts))
        clips = []
        for number, recipe in enumerate(job.clip_recipes, start=len(job.tasks) + 1):
            progress(f"clip as {recipe}", number, total)
            clips.append(job.make_clip(recipe, artifacts))
        if any(_clip_failed(clip) for clip in clips):
            raise GateFailed(tuple(artifacts), tuple(clips))
        if job.has_price:
            progress("price of the knobs", total - 1, total)
        price = job.make_price(artifacts) if job.has_price else None
        manifest = job.manifest(tuple(artifacts), tuple(clips), price)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return Bundle.open(destination)


def _failed(artifact: Artifact) -> bool:
    return artifact.parity.status is ParityStatus.FAILED


def _clip_failed(clip: ClipParity) -> bool:
    return clip.status is ParityStatus.FAILED


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
        self.clip_recipes = self.request.recipes if tracks(self.card) else ()
        self.has_price = self.card.knobs != AS_IS
        (self.folder / "artifacts").mkdir()
        (self.folder / "logs").mkdir()

    def modules(self) -> Mapping[str, nn.Module]:
        if not self._modules:
            with noise_to(self.folder / "logs" / "build.log"):
                self._modules = self.family.build(self.card, load(self.weights))
        return self._modules

    def make_reference(self) -> None:
        """Put the reference answers and the labels into the folder."""
        from phoneward.export.clip import clip_arrays
        from phoneward.export.reference import write_reference

        key = key_of({"kind": "reference", **self._identity(("torch", "timm", "numpy", "pillow"))})
        if self.cache is None or self.cache.take(key, self.folder) is None:
            modules = self.modules()
            examples = self.family.examples(self.card, modules)
            clip = clip_arrays(self.card, modules)
            write_reference(modules, self.card.stages, examples, self.folder / REFERENCE, clip)
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

    def make_clip(self, recipe: Recipe, artifacts: Sequence[Artifact]) -> ClipParity:
        """Track the reference's clip with the artifacts of a recipe, or take the verdict of it."""
        made = [a for a in artifacts if (a.format, a.precision) == (recipe.format, recipe.precision)]
        parts = {
            "kind": "clip",
            "artifacts": {artifact.stage: artifact.sha256 for artifact in made},
            "reference": sha256_of(self.folder / REFERENCE),
        }
        distributions = (*BACKENDS.get(recipe.format).distributions, *_ENGINE_DISTRIBUTIONS)
        key = key_of({**parts, **self._identity(distributions)})
        if self.cache is not None and (record := self.cache.take(key, self.folder)) is not None:
            return ClipParity.model_validate(record).model_copy(update={"cached": True})
        random_weights = self.weights.record.kind == RANDOM
        clip = Clip.of(Reference.load(self.folder / REFERENCE))
        basis = basis_of(clip.logits, random_weights=random_weights)
        threads = self.options.threads
        with noise_to(self.folder / "logs" / "clips.log"):
            verdict = check_clip(made, self.folder, clip, basis=basis, threads=threads)
        if self.cache is not None and not _clip_failed(verdict):
            self.cache.put(key, self.folder, (), verdict.model_dump(mode="json"))
        return verdict

    def make_price(self, artifacts: Sequence[Artifact]) -> Price:
        """Hold the model against itself with no knob turned, which is exported beside it."""
        from phoneward.export.price import TIMED_STAGE, Side, price_of, timed_format

        distributions = ("torch", "timm", *_ENGINE_DISTRIBUTIONS)
        parts = {"kind": "price", "artifacts": [artifact.sha256 for artifact in artifacts]}
        key = key_of({**parts, "threads": self.options.threads, **self._identity(distributions)})
        if self.cache is not None and (record := self.cache.take(key, self.folder)) is not None:
            return Price.model_validate(record).model_copy(update={"cached": True})
        plain = find(self.card.name)[0]
        request = dataclasses.replace(self.request, model=plain)
        folder = self.folder / "baseline"
        folder.mkdir()
        other = _Job(request, self.weights, folder, self.options)
        other.make_reference()
        ours = theirs = None
        if (timed := timed_format([recipe.format for recipe in request.recipes])) is not None:
            recipe = next(r for r in request.recipes if r.format == timed)
            stage = next(s for s in plain.stages if s.name == TIMED_STAGE)
            theirs = other.make_artifact(stage, recipe)
            named = (TIMED_STAGE, recipe.format, recipe.precision)
            ours = next(a for a in artifacts if (a.stage, a.format, a.precision) == named)
        with noise_to(self.folder / "logs" / "clips.log"):
            price = price_of(
                Side(self.family.constants(self.card), self._reference(), self.folder, ours),
                Side(self.family.constants(plain), other._reference(), folder, theirs),
                random_weights=self.weights.record.kind == RANDOM,
                threads=self.options.threads,
            )
        shutil.rmtree(folder)
        if self.cache is not None:
            self.cache.put(key, self.folder, (), price.model_dump(mode="json"))
        return price

    def _reference(self) -> Reference:
        return Reference.load(self.folder / REFERENCE)

    def manifest(
        self,
        artifacts: tuple[Artifact, ...],
        clips: tuple[ClipParity, ...] = (),
        price: Price | None = None,
    ) -> Manifest:
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
            clips=clips,
            price=price,
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

"""One export under way: the model, its reference, and one artifact after another."""

from __future__ import annotations

import copy
import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from phoneward import __version__
from phoneward.bundle import Artifact, ClipParity, KeptInFloat, Parity, Price, sha256_of, size_of
from phoneward.errors import ConversionError, PhonewardError
from phoneward.export.backends import BACKENDS, About, Graph, Lowered
from phoneward.export.cache import Cache, default_root, key_of, versions
from phoneward.export.models import find
from phoneward.export.recipe import AUTO, Recipe
from phoneward.export.request import ExportRequest
from phoneward.export.weights import WeightsFile, load
from phoneward.names import ParityStatus
from phoneward.quiet import noise_to
from phoneward.runtime.parity import Reference, check_artifact

if TYPE_CHECKING:
    from torch import nn

    from phoneward.bundle import Stage
    from phoneward.profiles.kernels import StageKernels

REFERENCE = "reference.npz"
LABELS = "labels.txt"
ENGINE_DISTRIBUTIONS = ("ai-edge-litert", "executorch", "onnxruntime", "numpy", "pillow")

# what the disk of the output answers; any other OSError during a conversion is the converter's
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Verdict = TypeVar("Verdict", ClipParity, Price)


@dataclass(frozen=True)
class Options:
    """How to export: replace an existing folder, use the cache, threads for the parity runs."""

    force: bool = False
    use_cache: bool = True
    threads: int = 2


AS_USUAL = Options()


@dataclass
class Job:
    """One export under way in a staging folder. The model is built when first needed."""

    request: ExportRequest
    weights: WeightsFile
    folder: Path
    options: Options
    _modules: dict[str, nn.Module] = field(default_factory=dict)
    _kernels: dict[tuple[str, tuple[str, ...]], StageKernels] = field(default_factory=dict)
    _labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        # the request's own card: its knobs may be turned
        self.card, self.family = self.request.model, find(self.request.model.name)[1]
        self.cache = Cache(default_root()) if self.options.use_cache else None
        (self.folder / "artifacts").mkdir()
        (self.folder / "logs").mkdir()
        (self.folder / "kernels").mkdir()

    def modules(self) -> Mapping[str, nn.Module]:
        """Build the model, or return it."""
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
        identity = self._identity((*backend.distributions, *ENGINE_DISTRIBUTIONS, "timm"))
        key = key_of({"recipe": recipe, "rewrites": rewrites, "stage": stage.name, **identity})
        if self.cache is not None and (record := self.cache.take(key, self.folder)) is not None:
            artifact = Artifact.model_validate(record)
            parity = artifact.parity.model_copy(update={"cached": True})
            return artifact.model_copy(update={"parity": parity})
        artifact = self._made(stage, recipe, rewrites)
        if self.cache is not None and artifact.parity.status is not ParityStatus.FAILED:
            files = (artifact.path, _log(stage, recipe), _kernels(stage, recipe))
            self.cache.put(key, self.folder, files, artifact.model_dump(mode="json"))
        return artifact

    def _made(self, stage: Stage, recipe: Recipe, rewrites: tuple[str, ...]) -> Artifact:
        if AUTO not in recipe.keep_fp32:
            return self._convert(stage, recipe, rewrites)
        from phoneward.export.blame.settle import settle

        return settle(
            lambda one: self._convert(stage, one, rewrites), recipe, self.folder, self.reference()
        )

    def _convert(self, stage: Stage, recipe: Recipe, rewrites: tuple[str, ...]) -> Artifact:
        path = f"artifacts/{stage.name}-{recipe.precision}{BACKENDS.get(recipe.format).suffix}"
        log, kernels = _log(stage, recipe), _kernels(stage, recipe)
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
            keep_fp32=self._kept(path, lowered),
            log=log,
            log_sha256=sha256_of(self.folder / log),
            kernels=kernels,
            kernels_sha256=sha256_of(self.folder / kernels),
        )
        artifact = artifact.model_copy(update={"parity": self._parity(artifact)})
        # anew: the parity run wrote to the log too
        return artifact.model_copy(update={"log_sha256": sha256_of(self.folder / log)})

    def _kept(self, path: str, lowered: Lowered) -> KeptInFloat | None:
        if not lowered.kept:
            return None
        from phoneward.export.blame.settle import kept_in

        return kept_in(self.folder / path, lowered.kept)

    def reference(self) -> Reference:
        """Read the reference that `make_reference` put into the folder."""
        return Reference.load(self.folder / REFERENCE)

    def remember(
        self,
        kind: type[Verdict],
        parts: Mapping[str, Any],
        make: Callable[[], Verdict],
        keep: Callable[[Verdict], bool] = lambda verdict: True,
    ) -> Verdict:
        """Take a verdict on `parts` from the cache, or make it and keep what `keep` allows."""
        distributions = {"torch", "timm", *ENGINE_DISTRIBUTIONS}
        for recipe in self.request.recipes:
            distributions.update(BACKENDS.get(recipe.format).distributions)
        key = key_of({"kind": kind.__name__, **parts, **self._identity(tuple(distributions))})
        if self.cache is not None and (record := self.cache.take(key, self.folder)) is not None:
            return kind.model_validate(record).model_copy(update={"cached": True})
        made = make()
        if self.cache is not None and keep(made):
            self.cache.put(key, self.folder, (), made.model_dump(mode="json"))
        return made

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
        log = self.folder / _log(stage, recipe)
        out = self.folder / "artifacts" / f"{stage.name}-{recipe.precision}{backend.suffix}"
        try:
            with noise_to(log):
                places = apply_all(module, rewrites)
                self._write_kernels(module, stage, recipe, rewrites)
                lowered = backend.lower(Graph(module, stage, self._about()), recipe, out)
            return lowered, tuple(name for name in rewrites if places.get(name))
        except PhonewardError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise
            kept = _keep(log, f"{self.card.name}-{log.name}")
            raise ConversionError(recipe.format, _first_line(error), kept) from error

    def _write_kernels(
        self, module: nn.Module, stage: Stage, recipe: Recipe, rewrites: tuple[str, ...]
    ) -> None:
        """Put the work of a rewritten module into the folder; formats may share a program."""
        from phoneward.export.backends.trace import example_inputs
        from phoneward.export.kernels.names import kernels_of_module

        program = (stage.name, rewrites)
        if program not in self._kernels:
            inputs = example_inputs(stage)
            self._kernels[program] = kernels_of_module(module, inputs, stage.name)
        text = self._kernels[program].model_dump_json(exclude_defaults=True) + "\n"
        (self.folder / _kernels(stage, recipe)).write_text(text, encoding="utf-8")

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
        with noise_to(self.folder / (artifact.log or "")):
            return check_artifact(
                self.folder / artifact.path,
                artifact,
                self.reference(),
                threads=self.options.threads,
            )


def _log(stage: Stage, recipe: Recipe) -> str:
    return f"logs/{stage.name}-{recipe}.log"


def _kernels(stage: Stage, recipe: Recipe) -> str:
    return f"kernels/{stage.name}-{recipe}.json"


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

"""From a request to a bundle on disk: convert, prove, and write whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from phoneward import __version__
from phoneward.bundle import MANIFEST, Artifact, Bundle, ClipParity, Manifest, Price, sha256_of
from phoneward.errors import InvalidSpec, ParityError
from phoneward.export.backends import BACKENDS
from phoneward.export.cache import versions
from phoneward.export.clip import make_clip, tracks
from phoneward.export.job import AS_USUAL, ENGINE_DISTRIBUTIONS, LABELS, REFERENCE, Job, Options
from phoneward.export.models.family import AS_IS
from phoneward.export.price import make_price
from phoneward.export.recipe import AUTO, Recipe
from phoneward.export.request import ExportRequest
from phoneward.export.weights import resolve
from phoneward.names import ParityStatus, Precision
from phoneward.staging import staged_output

__all__ = ["GateFailed", "Options", "export_bundle"]

Progress = Callable[[str, int, int], None]


class GateFailed(ParityError):
    """An artifact or a clip missed a parity threshold; `artifacts` and `clips` hold the verdicts.

    Clips are tracked only with artifacts that agree stage by stage.
    """

    def __init__(self, artifacts: tuple[Artifact, ...], clips: tuple[ClipParity, ...] = ()) -> None:
        self.artifacts, self.clips = artifacts, clips
        failed = [f"{a.stage} {a.format}-{a.precision}" for a in artifacts if _failed(a)]
        failed += [f"clip {c.format}-{c.precision}" for c in clips if _clip_failed(c)]
        halves = any(_failed(a) and _is_half_coreml(a) and not a.keep_fp32 for a in artifacts)
        hint = " (of coreml-fp16, --keep-fp32 auto may help)" if halves else ""
        super().__init__(
            f"parity with PyTorch failed: {', '.join(failed)}; no bundle was written{hint}"
        )


def export_bundle(
    request: ExportRequest,
    destination: Path,
    options: Options = AS_USUAL,
    progress: Progress = lambda step, done, total: None,
) -> Bundle:
    """Make every artifact of the request, prove each against PyTorch, write the bundle.

    `progress` is called with the name of a step, its number and the number of steps.

    Raises:
        GateFailed: an artifact that this machine can execute misses a threshold, or the
            artifacts of one format and precision lose the clip together.
        ConversionError: a converter refused; its log stays in the cache folder.
        OutputExists, OutputError, WeightsError: as their names say. No bundle is left behind.
    """
    with staged_output(destination, force=options.force) as folder:
        steps = _Steps(progress, _number_of_steps(request))
        steps.begin(f"weights: {request.weights}")
        job = Job(request, resolve(request.weights, request.model), folder, options)
        steps.begin("reference answers of PyTorch")
        job.make_reference()
        artifacts = _artifacts(job, steps)
        clips = _clips(job, artifacts, steps)
        price = None
        if request.model.knobs != AS_IS:
            steps.next("price of the knobs")
            price = make_price(job, artifacts)
        manifest = _manifest(job, artifacts, clips, price)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return Bundle.open(destination)


@dataclass
class _Steps:
    """Counts the steps that are reported; what comes before the first has number 0."""

    report: Progress
    total: int
    done: int = 0

    def begin(self, step: str) -> None:
        self.report(step, self.done, self.total)

    def next(self, step: str) -> None:
        self.done += 1
        self.begin(step)


def _number_of_steps(request: ExportRequest) -> int:
    a_recipe = len(request.model.stages) + tracks(request.model)
    return len(request.recipes) * a_recipe + (request.model.knobs != AS_IS) + 1


def _artifacts(job: Job, steps: _Steps) -> tuple[Artifact, ...]:
    artifacts = []
    for recipe in job.request.recipes:
        for stage in job.card.stages:
            steps.next(f"{stage.name} as {recipe}")
            artifacts.append(job.make_artifact(stage, recipe))
        _check_kept(recipe, artifacts)
    if any(_failed(artifact) for artifact in artifacts):
        raise GateFailed(tuple(artifacts))
    return tuple(artifacts)


def _check_kept(recipe: Recipe, artifacts: Sequence[Artifact]) -> None:
    """Refuse names that are of no op and no module in any stage."""
    kept = [artifact.keep_fp32 for artifact in artifacts if artifact.keep_fp32 is not None]
    known = {AUTO, *(op.name for one in kept for op in one.kept)}
    if unknown := [name for name in recipe.keep_fp32 if name not in known]:
        raise InvalidSpec(
            f"no op and no module to keep in fp32 is called {', '.join(unknown)}; "
            "`phoneward verify BUNDLE --blame --json` lists those of a package"
        )


def _clips(job: Job, artifacts: tuple[Artifact, ...], steps: _Steps) -> tuple[ClipParity, ...]:
    clips = []
    for recipe in job.request.recipes if tracks(job.card) else ():
        steps.next(f"clip as {recipe}")
        clips.append(make_clip(job, recipe, artifacts))
    if any(_clip_failed(clip) for clip in clips):
        raise GateFailed(artifacts, tuple(clips))
    return tuple(clips)


def _failed(artifact: Artifact) -> bool:
    return artifact.parity.status is ParityStatus.FAILED


def _is_half_coreml(artifact: Artifact) -> bool:
    return artifact.format == "coreml" and artifact.precision is Precision.FP16


def _clip_failed(clip: ClipParity) -> bool:
    return clip.status is ParityStatus.FAILED


def _manifest(
    job: Job, artifacts: tuple[Artifact, ...], clips: tuple[ClipParity, ...], price: Price | None
) -> Manifest:
    """Describe the folder as it is now."""
    distributions = {"torch", "timm", *ENGINE_DISTRIBUTIONS}
    for artifact in artifacts:
        distributions.update(BACKENDS.get(artifact.format).distributions)
    labels = job.folder / LABELS
    return Manifest(
        model=job.card.name,
        family=job.card.family,
        weights=job.weights.record,
        devices=job.request.devices,
        stages=job.card.stages,
        artifacts=artifacts,
        labels=LABELS if labels.exists() else None,
        labels_sha256=sha256_of(labels) if labels.exists() else None,
        reference=REFERENCE,
        reference_sha256=sha256_of(job.folder / REFERENCE),
        tools={"phoneward": __version__, **versions(distributions)},
        constants=job.family.constants(job.card),
        clips=clips,
        price=price,
    )

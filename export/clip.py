"""A clip to track, and what PyTorch finds in it; every set of artifacts is held against it.

A disc cut out of one photograph moves and turns over another. Nothing is known of the right
masks, nor needs to be: the stages in PyTorch, run by the very tracker that runs the artifacts,
say what to expect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from phoneward.bundle import ClipParity, sha256_of
from phoneward.export.job import REFERENCE
from phoneward.export.photographs import photographs
from phoneward.export.reference import run
from phoneward.export.weights import RANDOM
from phoneward.names import ParityStatus
from phoneward.quiet import noise_to
from phoneward.runtime import clip as clips
from phoneward.runtime.clip import Clip, basis_of, check_clip, track
from phoneward.runtime.images import load_image
from phoneward.runtime.tracker import STAGES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from phoneward.bundle import Artifact, Stage
    from phoneward.export.job import Job
    from phoneward.export.models.family import ModelCard
    from phoneward.export.recipe import Recipe
    from phoneward.spec import TensorSpec

FRAMES = 12
_SIDE, _DISC = 192, 80
_START, _STEP = (62, 76), (6, 3)  # x, y of the disc's centre in pixels, and its way in a frame
_TURN = 6.0  # degrees a frame
_GROUND, _OBJECT = "motorcycle", "cat"


@dataclass(frozen=True)
class TorchStage:
    """A stage's module as a tracker runs it."""

    module: nn.Module
    spec: Stage

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """The stage's inputs as PyTorch has them."""
        return self.spec.inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """The stage's outputs."""
        return self.spec.outputs

    def __call__(self, tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Run once on all inputs by name."""
        return run(self.module, self.spec, tensors)


def tracks(card: ModelCard) -> bool:
    """Does a tracker take this model's stages?"""
    return {stage.name for stage in card.stages} >= set(STAGES)


def clip_arrays(card: ModelCard, modules: Mapping[str, nn.Module]) -> dict[str, NDArray[Any]]:
    """Return the arrays `clip/...` of a reference; none for a model that does not track.

    `clip/frames` (n, H, W, 3) uint8, `clip/point` (2,) x and y of the prompt in the first,
    `clip/logits` (n, 4g, 4g) float32.
    """
    if not tracks(card):
        return {}
    stages = {spec.name: TorchStage(modules[spec.name], spec) for spec in card.stages}
    frames = make_frames()
    point = (float(_START[0]), float(_START[1]))
    return {
        "clip/frames": frames,
        "clip/point": np.array(point, np.float32),
        "clip/logits": track(stages, frames, point),
    }


def make_clip(job: Job, recipe: Recipe, artifacts: Sequence[Artifact]) -> ClipParity:
    """Track the reference's clip with the artifacts of a recipe, or take the verdict on them."""
    made = [a for a in artifacts if (a.format, a.precision) == (recipe.format, recipe.precision)]
    random_weights = job.weights.record.kind == RANDOM

    def play() -> ClipParity:
        clip = Clip.of(job.reference())
        basis = basis_of(clip.logits, random_weights=random_weights)
        with noise_to(job.folder / "logs" / "clips.log"):
            return check_clip(made, job.folder, clip, basis=basis, threads=job.options.threads)

    parts = {
        "artifacts": {artifact.stage: artifact.sha256 for artifact in made},
        "reference": sha256_of(job.folder / REFERENCE),
        "limits": clips.CLIP_THRESHOLDS[recipe.precision],
    }
    return job.remember(
        ClipParity, parts, play, lambda verdict: verdict.status is not ParityStatus.FAILED
    )


def make_frames() -> NDArray[np.uint8]:
    """Return the clip, (12, 192, 192, 3) RGB."""
    photos = {path.stem: path for path in photographs()}
    ground = ImageOps.fit(load_image(photos[_GROUND]), (_SIDE, _SIDE), Image.Resampling.BICUBIC)
    thing = ImageOps.fit(load_image(photos[_OBJECT]), (_DISC, _DISC), Image.Resampling.BICUBIC)
    disc = Image.new("L", (_DISC, _DISC))
    ImageDraw.Draw(disc).ellipse((0, 0, _DISC - 1, _DISC - 1), fill=255)
    frames = []
    for index in range(FRAMES):
        frame = ground.copy()
        turned = thing.rotate(_TURN * index, Image.Resampling.BICUBIC)
        left, top = (
            start + step * index - _DISC // 2 for start, step in zip(_START, _STEP, strict=True)
        )
        frame.paste(turned, (left, top), disc)
        frames.append(np.asarray(frame))
    return np.stack(frames)

"""The training of `efficienttam-nano`, part after part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from phoneward.export.models.efficienttam.model import EfficientTAM
from phoneward.export.models.efficienttam.variants import NANO
from phoneward.export.train.checkpoint import Checkpoint
from phoneward.export.train.folder import claimed
from phoneward.export.train.loop import Phase, Report, fit
from phoneward.export.train.tam.feed import Feed, Feeder
from phoneward.export.train.tam.losses import loss_of
from phoneward.export.train.tam.start import begin
from phoneward.export.train.tam.steps import Steps
from phoneward.export.train.tam.unroll import Unroll, normalised

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from phoneward.export.train.tam.batch import Batch
    from phoneward.export.train.tam.plan import Part

MEAN = STD = (0.5, 0.5, 0.5)


def run(
    curriculum: tuple[Part, ...],
    folder: Path,
    report: Report,
    *,
    seed: int = 0,
    images: tuple[Path, ...] = (),
) -> EfficientTAM:
    """Train in `folder`, or go on there; returns the model, ready for inference.

    Raises:
        InvalidSpec: the folder holds another training, or what is in it is damaged.
        MissingExtra: the trunk's ImageNet weights are not installed.
        OSError: the folder cannot be written.
    """
    identity = {
        "curriculum": [asdict(part) for part in curriculum],
        "seed": seed,
        "images": [str(each) for each in images],
    }
    with claimed(folder, identity), Feeder(images) as feeder:
        model = EfficientTAM(NANO)
        begin(model, seed)
        for number, part in enumerate(curriculum):
            model = _train(model, part, (seed, number), folder, (feeder, report))
    ready: EfficientTAM = _sized(model, NANO.image, NANO.slots).eval()
    return ready


def _train(
    model: EfficientTAM,
    part: Part,
    key: tuple[int, int],
    folder: Path,
    helpers: tuple[Feeder, Report],
) -> EfficientTAM:
    feeder, report = helpers
    seed, number = key
    model = _sized(model, part.sampling.size, max(1, min(NANO.slots, part.sampling.frames - 1)))
    checkpoint = Checkpoint(folder / f"{number}-{part.name}.pt", f"{part} seed {seed}")

    def epoch(generator: Generator) -> Feed:
        from phoneward.export.train.tam.plan import EPOCH

        drawn = int(torch.randint(2**31, (), generator=generator))
        return Feed(feeder, part.sampling, (seed, number, drawn), EPOCH)

    with Steps(folder / f"{number}-{part.name}.csv") as steps:
        phase = Phase(part.name, part.schedule, seed * 100 + number, part.rates)
        fit(model, epoch, step_of(model, part, steps), phase, checkpoint, report)
    return model


def step_of(model: EfficientTAM, part: Part, steps: Steps) -> Callable[[Batch], Tensor]:
    """The loss of one batch; its figures go to `steps`."""

    def loss(batch: Batch) -> Tensor:
        frames = normalised(torch.from_numpy(batch.frames), MEAN, STD)
        truth = torch.from_numpy(batch.masks).float()
        correct = float(torch.rand(())) < part.correct
        guesses = Unroll(model, frozen_trunk=part.trunk == 0)(batch, frames, truth, correct=correct)
        value = loss_of(guesses, truth, part.focal)
        steps.write(value, guesses, truth)
        return value

    return loss


def _sized(model: EfficientTAM, side: int, slots: int) -> EfficientTAM:
    """The same weights for another size of image and memory bank: no weight depends on them."""
    other = EfficientTAM(replace(NANO, image=side, slots=slots))
    other.load_state_dict(model.state_dict())
    return other

"""The training of `efficienttam-nano`, part after part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from phoneward.errors import InvalidSpec
from phoneward.export.models.efficienttam.family import NORMS
from phoneward.export.models.efficienttam.model import EfficientTAM
from phoneward.export.models.efficienttam.variants import NANO, Variant
from phoneward.export.train.checkpoint import Checkpoint
from phoneward.export.train.clips import open_pool
from phoneward.export.train.folder import claimed, write_whole
from phoneward.export.train.loop import Phase, Report, fit
from phoneward.export.train.tam.feed import Feed, Feeder
from phoneward.export.train.tam.frozen import FrozenTrunk
from phoneward.export.train.tam.losses import loss_of
from phoneward.export.train.tam.plan import EPOCH
from phoneward.export.train.tam.start import begin
from phoneward.export.train.tam.steps import Steps
from phoneward.export.train.tam.unroll import Unroll, normalised
from phoneward.export.train.weights_file import serialized
from phoneward.export.weights import WeightsFile, from_file, load, load_strictly

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from phoneward.export.train.tam.batch import Batch
    from phoneward.export.train.tam.plan import Part


@dataclass(frozen=True)
class Training:
    """What is trained, where, and what with.

    Attributes:
        curriculum: the parts, in order.
        folder: of the checkpoints, the figures of each step, and the weights.
        seed: of all that is left to chance.
        images: folders of the user's own pictures, beside those that are found.
        weights: a file to begin with, instead of ImageNet's trunk and chance.
        device: where PyTorch computes, such as `cpu` or `cuda`.
        variant: what is trained.
    """

    curriculum: tuple[Part, ...]
    folder: Path
    seed: int = 0
    images: tuple[Path, ...] = ()
    weights: Path | None = None
    device: str = "cpu"
    variant: Variant = NANO

    @property
    def identity(self) -> dict[str, object]:
        """What decides the weights but for rounding; raises as `given` and `open_pool`."""
        given = self.given()
        return {
            "curriculum": [asdict(part) for part in self.curriculum],
            "seed": self.seed,
            "variant": asdict(self.variant),
            "pictures": open_pool("train", folders=list(self.images)).digest,
            "weights": given.record.sha256 if given else None,
        }

    def given(self) -> WeightsFile | None:
        """Return the weights to begin with; raises `WeightsError` if they cannot be read."""
        return from_file(self.weights) if self.weights else None


def run(training: Training, report: Report) -> Path:
    """Train, or go on with it; returns the file of the weights, in half precision.

    Raises:
        InvalidSpec: the folder holds another training, or what is in it is damaged; or there is no
            such device.
        DataError, ImageError: one of the user's pictures cannot be used, or clips cannot be made.
        WeightsError: the weights to begin with cannot be read, or do not fit.
        MissingExtra: the trunk's ImageNet weights, or the clips' pictures are not installed.
        OSError: the folder cannot be written.
    """
    file = training.folder / f"{training.variant.name}.safetensors"
    _check_device(training.device)
    with claimed(training.folder, training.identity), Feeder(training.images) as feeder:
        with torch.device(training.device):
            model = _begun(training)
            ends: dict[str, dict[str, Tensor]] = {}
            for number, part in enumerate(training.curriculum):
                model = _train(model, part, _Course(training, number, feeder, report))
                if part.mean_with:
                    model.load_state_dict(mean(ends[part.mean_with], model.state_dict()))
                ends[part.name] = model.state_dict()
        state = {
            key: (value.half() if value.is_floating_point() else value).cpu().contiguous()
            for key, value in model.state_dict().items()
        }
        write_whole(file, serialized(state, {"variant": training.variant.name}))
    return file


def mean(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Average two states of a model; what is no float, such as counts, is the second's."""
    return {
        key: (one[key] + value) / 2 if value.is_floating_point() else value
        for key, value in other.items()
    }


def _check_device(name: str) -> None:
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidSpec(f"PyTorch cannot compute on '{name}' here: {reason}") from error


@dataclass(frozen=True)
class _Course:
    """Which part is under way, and what it needs."""

    training: Training
    number: int
    feeder: Feeder
    report: Report


def _begun(training: Training) -> EfficientTAM:
    given = training.given()
    if given is None:
        return begin(training.variant, training.seed)
    model = EfficientTAM(training.variant)
    load_strictly(model, load(given) or {}, training.variant.name)
    return model


def _train(model: EfficientTAM, part: Part, course: _Course) -> EfficientTAM:
    training, number = course.training, course.number
    remembered = max(1, min(training.variant.slots, part.frames - 1))
    model = _sized(model, part.size, remembered)
    name = f"{number}-{part.name}"
    checkpoint = Checkpoint(training.folder / f"{name}.pt", f"{part} seed {training.seed}")

    def epoch(generator: Generator) -> Feed:
        drawn = int(torch.randint(2**31, (), generator=generator, device="cpu"))
        steps.begin(drawn)
        return Feed(course.feeder, part.samplings, (training.seed, number, drawn), EPOCH)

    with Steps(training.folder / f"{name}.csv") as steps:
        seed = training.seed * 100 + number
        phase = Phase(part.name, part.schedule, seed, part.rates, muon=True, average=part.average)
        fit(model, epoch, step_of(model, part, steps), phase, checkpoint, course.report)
    return model


def step_of(model: EfficientTAM, part: Part, steps: Steps) -> Callable[[Batch], Tensor]:
    """The loss of one batch; its figures go to `steps`."""
    trunk = FrozenTrunk(model.image_encoder.trunk) if part.trunk == 0 else None
    mean, std = NORMS[model.variant.trunk]

    def loss(batch: Batch) -> Tensor:
        device = model.no_mem_embed.device
        frames = normalised(torch.from_numpy(batch.frames).to(device), mean, std)
        truth = torch.from_numpy(batch.masks).to(device).float()
        correct = float(torch.rand((), device="cpu")) < part.correct
        guesses = Unroll(model, trunk)(batch, frames, truth, correct=correct)
        value = loss_of(guesses, truth, part.weights)
        steps.write(value, guesses, truth)
        return value

    return loss


def _sized(model: EfficientTAM, side: int, slots: int) -> EfficientTAM:
    """The same weights for another size of image and memory bank: no weight depends on them."""
    other = EfficientTAM(replace(model.variant, image=side, slots=slots))
    other.load_state_dict(model.state_dict())
    return other

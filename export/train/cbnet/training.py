"""One training in a folder: network after network, each kept as soon as it is whole."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phoneward.export.models.cbnet.family import network
from phoneward.export.models.cbnet.hybrid import ExitHybrid
from phoneward.export.models.cbnet.networks import BranchyNet, CBNet, LightNet
from phoneward.export.models.cbnet.settings import LightSize, Settings
from phoneward.export.train.cbnet.batches import Batches, as_tensor
from phoneward.export.train.cbnet.easy_hard import (
    Judged,
    choose_exit_entropy,
    classes_of,
    easiest,
    judge,
)
from phoneward.export.train.cbnet.files import (
    Origin,
    digest_of,
    origin_of,
    read,
    samples_of,
    save,
)
from phoneward.export.train.cbnet.losses import conversion, joint
from phoneward.export.train.cbnet.plan import Plan
from phoneward.export.train.checkpoint import Checkpoint
from phoneward.export.train.data.dataset import Dataset, Split, hold_out
from phoneward.export.train.loop import Phase, Report, Schedule, fit

RECIPE = 1
"""Number of this code's way to train: changed where old weights would not be made again."""
# hard images are a quarter of what the autoencoder sees, or more: CBNet's notebooks leave out easy
# ones until then; showing hard ones again keeps all
_EASY_PER_HARD = 3


@dataclass
class Training:
    """Trains what a plan says; finished networks and epochs are not trained again.

    `folder` gets `<network>.safetensors` for each network and, while one is trained, its
    checkpoint; whoever trains claims it first. `rest` are the images that are trained on,
    `places` theirs in the training set. `losses` has the mean loss of each epoch by network.
    """

    dataset: Dataset
    plan: Plan
    folder: Path
    report: Report

    def __post_init__(self) -> None:
        """Set part of the training images aside."""
        self.places, held = hold_out(self.dataset.train, self.plan.held_out, self.plan.seed)
        self.rest, self.held_out = map(self.dataset.train.take, (self.places, held))
        self.losses: dict[str, tuple[float, ...]] = {}

    @cached_property
    def images(self) -> Tensor:
        """What is trained on, (N, 1, 28, 28)."""
        return as_tensor(self.rest)

    @cached_property
    def classes(self) -> Tensor:
        """Their classes (N,)."""
        return torch.from_numpy(self.rest.classes)

    def lenet(self) -> nn.Module:
        """Train LeNet by cross entropy."""
        return self._classifier("lenet", "lenet", self.plan.settings)

    def light(self, size: LightSize) -> nn.Module:
        """Train a light network of any size by itself."""
        name = f"light-{size.downsampling}-{size.stem}-{size.branch}"
        return self._classifier(
            name, "cbnet_light", self.plan.settings.model_copy(update={"light": size})
        )

    def branchynet(self) -> BranchyNet:
        """Train BranchyNet, its exit and its end together."""

        def make(checkpoint: Checkpoint) -> nn.Module:
            model = cast(BranchyNet, self._new("branchynet", self.plan.settings))
            schedule = self.plan.classifiers
            batches = self._batches(schedule, self.classes)
            self._fit(model, schedule, batches, lambda b: joint(model, *b), checkpoint)
            return model

        return cast(BranchyNet, self._kept("branchynet", "branchynet", self.plan.settings, make))

    def settled(self, branchynet: BranchyNet) -> Settings:
        """Return the settings with the exit entropy chosen, if it was not given."""
        if not self.plan.chosen_entropy:
            return self.plan.settings
        judged = judge(branchynet, as_tensor(self.held_out))
        chosen = choose_exit_entropy(judged, self.held_out.classes)
        return self.plan.settings.model_copy(update={"exit_entropy": chosen})

    def judged(self, branchynet: BranchyNet) -> Judged:
        """Return what BranchyNet says of the images it was trained on."""
        return judge(branchynet, self.images)

    def targets(self, judged: Judged) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return the easiest image of each class, by its place in what is trained on."""
        return easiest(judged, self.rest.classes, len(self.dataset.labels))

    def cbnet(self, name: str, settings: Settings, light: LightNet, judged: Judged) -> CBNet:
        """Train an autoencoder that converts to the easiest images, before a light network.

        `judged` says which images are easy, and is of this object's images.
        """

        def make(checkpoint: Checkpoint) -> nn.Module:
            model = cast(CBNet, self._new("cbnet", settings))
            model.light.load_state_dict(light.state_dict())
            targets = self.images[self.targets(judged)].flatten(1)
            schedule = self.plan.autoencoder
            hard = judged.entropies >= settings.exit_entropy
            batches = self._batches(schedule, self.classes, _mixed(hard))
            autoencoder = model.autoencoder
            self._fit(
                autoencoder,
                schedule,
                batches,
                lambda b: conversion(autoencoder, b[0], targets[b[1]]),
                checkpoint,
            )
            return model

        entropies = hashlib.sha256(judged.entropies.tobytes()).hexdigest()
        upon = (settings.autoencoder, settings.exit_entropy, digest_of(light), entropies)
        return cast(CBNet, self._kept(name, "cbnet", settings, make, upon))

    def exit_hybrid(self, schedule: Schedule) -> tuple[ExitHybrid, Settings]:
        """Train a hybrid on all images, and put it behind the exit of a light network.

        The exit entropy is the highest that keeps LeNet's accuracy on the held-out images.
        """
        size = self.plan.hybrid_light
        light = self.light(size)
        settings = self.plan.settings.model_copy(update={"light": size})

        def make(checkpoint: Checkpoint) -> nn.Module:
            model = cast(ExitHybrid, self._new("exit_hybrid", settings))
            model.exit.load_state_dict(light.state_dict())
            batches = self._batches(schedule, self.classes)
            hybrid = model.finish
            self._fit(
                hybrid,
                schedule,
                batches,
                partial(_cross_entropy, hybrid),
                checkpoint,
            )
            return model

        upon = (settings.hybrid, schedule, size, digest_of(light))
        model = cast(ExitHybrid, self._kept("exit_hybrid", "exit_hybrid", settings, make, upon))
        held = as_tensor(self.held_out)
        least = float((classes_of(self.lenet(), held) == self.held_out.classes).mean())
        chosen = choose_exit_entropy(judge(model, held), self.held_out.classes, least)
        settled = settings.model_copy(update={"exit_entropy": chosen})
        self.save(model, "exit_hybrid", settled, upon)
        return model, settled

    def save(
        self, model: nn.Module, name: str, settings: Settings, upon: tuple[object, ...] = ()
    ) -> None:
        """Write a network, such as BranchyNet cut at its exit; `upon` is what else it rests on."""
        origin = Origin(self._key(name, upon), self.losses.get(name, ()))
        save(model, self._file(name), settings, self._samples(), origin)

    def _classifier(self, name: str, kind: str, settings: Settings) -> nn.Module:
        def make(checkpoint: Checkpoint) -> nn.Module:
            model = self._new(kind, settings)
            schedule = self.plan.classifiers
            batches = self._batches(schedule, self.classes)
            loss = partial(_cross_entropy, model)
            self._fit(model, schedule, batches, loss, checkpoint)
            return model

        return self._kept(name, kind, settings, make)

    def _kept(
        self,
        name: str,
        kind: str,
        settings: Settings,
        make: Callable[[Checkpoint], nn.Module],
        upon: tuple[object, ...] = (),
    ) -> nn.Module:
        """Return the network of `<name>.safetensors` if it rests on the same, or make it."""
        file, key = self._file(name), self._key(name, upon)
        origin = origin_of(file)
        if origin is not None and origin.training == key:
            self.losses[name] = origin.losses
            return read(kind, file, settings)
        checkpoint = Checkpoint(self.folder / "checkpoints" / f"{name}.pt", key)
        model = make(checkpoint).eval()
        self.save(model, name, settings, upon)
        checkpoint.remove()
        return model

    def _fit(
        self,
        model: nn.Module,
        schedule: Schedule,
        batches: Batches,
        loss: Callable[[tuple[Tensor, ...]], Tensor],
        checkpoint: Checkpoint,
    ) -> None:
        name = checkpoint.path.stem
        phase = Phase(name, schedule, self.plan.seed)
        self.losses[name] = tuple(fit(model, batches, loss, phase, checkpoint, self.report))

    def _new(self, kind: str, settings: Settings) -> nn.Module:
        torch.manual_seed(self.plan.seed)
        model = network(kind, settings)
        return model.to(memory_format=torch.channels_last)

    def _batches(self, schedule: Schedule, values: Tensor, chosen: Tensor | None = None) -> Batches:
        return Batches(self.images, values, schedule.batch, self.plan.augmentation, chosen)

    def _samples(self) -> Tensor:
        return samples_of(self.dataset.test, len(self.dataset.labels))

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _key(self, name: str, upon: tuple[object, ...]) -> str:
        """Hash what the weights of a network depend on: no more, so that the rest may change."""
        schedule = self.plan.autoencoder if name.startswith("cbnet") else self.plan.classifiers
        parts = (name, schedule, sorted(self.identity.items()), upon)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @cached_property
    def identity(self) -> dict[str, object]:
        """What all networks of a folder have in common: another value is another training."""
        plan = self.plan
        return {
            "data": self.dataset.name,
            "labels": list(self.dataset.labels),
            "images": digest(self.dataset.train),
            "seed": plan.seed,
            "held out": plan.held_out,
            "augmentation": repr(plan.augmentation),
            "schedule": repr(plan.classifiers),
            "recipe": RECIPE,
        }


def _cross_entropy(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    images, classes = batch
    return F.cross_entropy(model(images), classes)


def digest(split: Split) -> str:
    """Return the SHA-256 of images and classes."""
    return hashlib.sha256(split.images.tobytes() + split.classes.tobytes()).hexdigest()


def _mixed(hard: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Tensor:
    """Indices of all images, hard ones as often as it takes to be a quarter of them."""
    easy_count, hard_count = int((~hard).sum()), int(hard.sum())
    times = max(1, math.ceil(easy_count / (_EASY_PER_HARD * hard_count))) if hard_count else 1
    everyone = np.arange(len(hard))
    return torch.from_numpy(np.concatenate([everyone, *[everyone[hard]] * (times - 1)]))

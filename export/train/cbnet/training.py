"""One training in a folder: network after network, each kept as soon as it is whole."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phoneward.export.models.cbnet.family import network
from phoneward.export.models.cbnet.hybrid import ExitHybrid
from phoneward.export.models.cbnet.networks import BranchyNet, CBNet, LightNet
from phoneward.export.models.cbnet.settings import LightSize, Settings, settings_of
from phoneward.export.train.cbnet.batches import Batches, as_tensor
from phoneward.export.train.cbnet.easy_hard import (
    Judged,
    choose_exit_entropy,
    classes_of,
    easiest,
    judge,
)
from phoneward.export.train.cbnet.files import read, samples_of, save, training_of
from phoneward.export.train.cbnet.losses import conversion, joint
from phoneward.export.train.cbnet.plan import Plan
from phoneward.export.train.checkpoint import Checkpoint
from phoneward.export.train.data.dataset import Dataset, Split, hold_out
from phoneward.export.train.loop import Phase, Report, Schedule, fit

# hard images are a quarter of what the autoencoder sees, or more: CBNet's notebooks leave out easy
# ones until then; showing hard ones again keeps all
_EASY_PER_HARD = 3


@dataclass
class Training:
    """Trains what a plan says; finished networks and epochs are not trained again.

    `folder` gets `<network>.safetensors` for each network and, while one is trained, its
    checkpoint. `losses` has the mean loss of each epoch of the phases that this object ran.
    """

    dataset: Dataset
    plan: Plan
    folder: Path
    report: Report

    def __post_init__(self) -> None:
        """Make the folder, set part of the training images aside."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rest, self.held_out = hold_out(self.dataset.train, self.plan.held_out, self.plan.seed)
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

        def make() -> nn.Module:
            model = cast(BranchyNet, self._new("branchynet", self.plan.settings))
            schedule = self.plan.classifiers
            batches = self._batches(schedule, self.classes)
            self._fit(model, "branchynet", schedule, batches, lambda b: joint(model, *b))
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

        def make() -> nn.Module:
            model = cast(CBNet, self._new("cbnet", settings))
            model.light.load_state_dict(light.state_dict())
            targets = self.images[self.targets(judged)].flatten(1)
            schedule = self.plan.autoencoder
            hard = judged.entropies >= settings.exit_entropy
            batches = self._batches(schedule, self.classes, _mixed(hard))
            autoencoder = model.autoencoder
            self._fit(
                autoencoder,
                name,
                schedule,
                batches,
                lambda b: conversion(autoencoder, b[0], targets[b[1]]),
            )
            return model

        return cast(CBNet, self._kept(name, "cbnet", settings, make))

    def exit_hybrid(self, schedule: Schedule) -> tuple[ExitHybrid, Settings]:
        """Train a hybrid on all images, and put it behind the exit of a light network.

        The exit entropy is the highest that keeps LeNet's accuracy on the held-out images.
        """
        size = self.plan.hybrid_light
        light = self.light(size)
        settings = self.plan.settings.model_copy(update={"light": size})

        def make() -> nn.Module:
            model = cast(ExitHybrid, self._new("exit_hybrid", settings))
            model.exit.load_state_dict(light.state_dict())
            batches = self._batches(schedule, self.classes)
            hybrid = model.finish
            self._fit(
                hybrid,
                "exit_hybrid",
                schedule,
                batches,
                lambda b: F.cross_entropy(hybrid(b[0]), b[1]),
            )
            return model

        def settle(model: nn.Module) -> Settings:
            held = as_tensor(self.held_out)
            least = float((classes_of(self.lenet(), held) == self.held_out.classes).mean())
            chosen = choose_exit_entropy(judge(model, held), self.held_out.classes, least)
            return settings.model_copy(update={"exit_entropy": chosen})

        model = self._kept("exit_hybrid", "exit_hybrid", settings, make, settle)
        return cast(ExitHybrid, model), settle(model)

    def save(self, model: nn.Module, name: str, settings: Settings) -> None:
        """Write a network that was not trained by itself, such as BranchyNet cut at its exit."""
        file = self._file(name)
        if training_of(file) == self._key(name) and settings_of(file) == settings:
            return
        save(model, self._file(name), settings, self._samples(), self._key(name))

    def _classifier(self, name: str, kind: str, settings: Settings) -> nn.Module:
        def make() -> nn.Module:
            model = self._new(kind, settings)
            schedule = self.plan.classifiers
            batches = self._batches(schedule, self.classes)
            self._fit(model, name, schedule, batches, lambda b: F.cross_entropy(model(b[0]), b[1]))
            return model

        return self._kept(name, kind, settings, make)

    def _kept(
        self,
        name: str,
        kind: str,
        settings: Settings,
        make: Callable[[], nn.Module],
        settle: Callable[[nn.Module], Settings] | None = None,
    ) -> nn.Module:
        """Return the network of `<name>.safetensors` if it is of this training, or make it."""
        file = self._file(name)
        if training_of(file) == self._key(name):
            return read(kind, file, settings)
        model = make().eval()
        save(model, file, settle(model) if settle else settings, self._samples(), self._key(name))
        self._checkpoint(name).remove()
        return model

    def _fit(
        self,
        model: nn.Module,
        name: str,
        schedule: Schedule,
        batches: Batches,
        loss: Callable[[tuple[Tensor, ...]], Tensor],
    ) -> None:
        phase = Phase(name, schedule, self.plan.seed)
        self.losses[name] = tuple(
            fit(model, batches, loss, phase, self._checkpoint(name), self.report)
        )

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

    def _checkpoint(self, name: str) -> Checkpoint:
        return Checkpoint(self.folder / "checkpoints" / f"{name}.pt", self._key(name))

    def _key(self, name: str) -> str:
        """Hash what the weights of a network depend on: no more, so that the rest may change."""
        plan = self.plan
        parts: list[object] = [plan.settings.labels, plan.augmentation, plan.seed, plan.held_out]
        parts += [name, plan.classifiers, self._data_digest]
        if name.startswith("cbnet"):
            parts += [plan.settings, plan.chosen_entropy, plan.autoencoder]
        if name == "exit_hybrid":
            parts += [plan.settings.hybrid, plan.hybrid, plan.hybrid_light]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @cached_property
    def _data_digest(self) -> str:
        return digest(self.dataset.train)


def digest(split: Split) -> str:
    """Return the SHA-256 of images and classes."""
    return hashlib.sha256(split.images.tobytes() + split.classes.tobytes()).hexdigest()


def _mixed(hard: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Tensor:
    """Indices of all images, hard ones as often as it takes to be a quarter of them."""
    easy_count, hard_count = int((~hard).sum()), int(hard.sum())
    times = max(1, math.ceil(easy_count / (_EASY_PER_HARD * hard_count))) if hard_count else 1
    everyone = np.arange(len(hard))
    return torch.from_numpy(np.concatenate([everyone, *[everyone[hard]] * (times - 1)]))

"""Which systems there are: the published ones, and those that are searched through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch.utils.flop_counter import FlopCounterMode

from phoneward.apps.bench.cbnet.records import HeldOut, System
from phoneward.export.models import find
from phoneward.export.models.cbnet.networks import BranchyNet, LightNet
from phoneward.export.models.cbnet.settings import LightSize, Settings, settings_of
from phoneward.export.train.cbnet.batches import as_tensor
from phoneward.export.train.cbnet.easy_hard import classes_of, judge
from phoneward.export.train.cbnet.files import read
from phoneward.export.train.cbnet.run import NETWORKS, cut
from phoneward.names import Precision

if TYPE_CHECKING:
    from torch import nn

    from phoneward.export.train.cbnet.easy_hard import Judged
    from phoneward.export.train.cbnet.training import Training

AUTOENCODERS: tuple[tuple[int, ...], ...] = ((256, 64), (128, 32), (64,))
LIGHTS = (
    LightSize(stem=4, branch=8, downsampling="stride"),
    LightSize(stem=8, branch=16, downsampling="stride"),
    LightSize(stem=16, branch=32, downsampling="stride"),
)
_BEFORE = LIGHTS[0]
"""The light network behind a searched autoencoder: prototypes are easy to tell apart."""


@dataclass
class Search:
    """Trains what the search goes through, in the folder of a training that is done."""

    training: Training

    def systems(self) -> list[System]:
        """Return light networks, autoencoders with two light networks each, and the hybrid."""
        found = [self._light(size) for size in LIGHTS]
        found += [system for hidden in AUTOENCODERS for system in self._converting(hidden)]
        published = self.training.plan.settings.autoencoder
        found += [self._system("cbnet int8", "cbnet", "cbnet", Precision.INT8)]
        found += self._before(published, "cbnet")
        if self.training.plan.hybrid is not None:
            self.training.exit_hybrid(self.training.plan.hybrid)
            found.append(self._system("exit + hybrid", "exit_hybrid", "exit_hybrid"))
        return found

    def _light(self, size: LightSize) -> System:
        self.training.light(size)
        name = f"light-{size.downsampling}-{size.stem}-{size.branch}"
        return self._system(f"light {size.stem}-{size.branch}", "cbnet_light", name)

    def _converting(self, hidden: tuple[int, ...]) -> list[System]:
        name = "cbnet-" + "-".join(str(width) for width in hidden)
        branchynet = self.training.branchynet()
        settings = self.training.settled(branchynet)
        light = cut(branchynet, len(settings.labels))
        own = settings.model_copy(update={"autoencoder": hidden})
        self.training.cbnet(name, own, light, self.judged)
        return self._before(hidden, name)

    def _before(self, hidden: tuple[int, ...], name: str) -> list[System]:
        """Put a trained autoencoder before the smallest light network, too."""
        settings = cast(Settings, settings_of(self._file(name)))
        model = read("cbnet", self._file(name), settings)
        small = cast(LightNet, self.training.light(_BEFORE))
        model.light = small
        joined = f"{name}+{_BEFORE.stem}-{_BEFORE.branch}"
        own = settings.model_copy(update={"light": _BEFORE})
        self.training.save(model, joined, own)
        title = f"cbnet {'-'.join(map(str, hidden))}"
        systems = []
        for precision in (Precision.FP32, Precision.INT8):
            suffix = f" {precision}" if precision is Precision.INT8 else ""
            if name != "cbnet":
                systems.append(self._system(f"{title}{suffix}", "cbnet", name, precision))
            with_small = f"{title} + light {_BEFORE.stem}-{_BEFORE.branch}{suffix}"
            systems.append(self._system(with_small, "cbnet", joined, precision))
        return systems

    @cached_property
    def judged(self) -> Judged:
        """What BranchyNet says of the training images."""
        return self.training.judged(self.training.branchynet())

    def _system(
        self, name: str, model: str, file: str, precision: Precision = Precision.FP32
    ) -> System:
        return system_of(
            self.training.folder, self.training.dataset.name, name, model, file
        ).model_copy(update={"precision": precision})

    def _file(self, name: str) -> Path:
        return self.training.folder / f"{name}.safetensors"


def published(folder: Path, data: str) -> list[System]:
    """Return the four networks of a training."""
    return [
        system_of(folder, data, name, name, name).model_copy(update={"published": True})
        for name in NETWORKS
    ]


def system_of(folder: Path, data: str, name: str, model: str, file: str) -> System:
    """Describe a weights file of a training as a system, its work counted."""
    weights = (folder / f"{file}.safetensors").absolute()
    return System(
        data=data,
        name=name,
        model=model,
        weights=str(weights),
        multiply_adds=_multiply_adds(model, weights),
    )


def held_out(system: System, training: Training) -> HeldOut:
    """Classify the held-out images with a system in PyTorch, in single precision."""
    weights = Path(system.weights)
    settings = cast(Settings, settings_of(weights))
    model = read(system.model, weights, settings)
    images, truth = as_tensor(training.held_out), training.held_out.classes
    if _has_exit(model):
        found = judge(model, images).answers(settings.exit_entropy)
    else:
        found = classes_of(model, images)
    return HeldOut(system=system, accuracy=float((found == truth).mean()))


def _has_exit(model: nn.Module) -> bool:
    return isinstance(model, BranchyNet) or hasattr(model, "exit")


def _multiply_adds(model: str, weights: Path) -> tuple[int, ...]:
    """Count by running each stage of the plain network on one image."""
    from phoneward.export.weights import load, resolve

    card, family = find(model)
    card = family.fitted(card, weights)
    modules = family.build(card, load(resolve(str(weights), card)))
    known: Mapping[str, torch.Tensor] = {"image": torch.zeros(1, 1, 28, 28)}
    counts = []
    for stage in card.stages:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            out = modules[stage.name](*(known[spec.name] for spec in stage.inputs))
        outputs = (out,) if isinstance(out, torch.Tensor) else out
        names = (spec.name for spec in stage.outputs)
        known = {**known, **dict(zip(names, outputs, strict=True))}
        counts.append(counter.get_total_flops() // 2)
    return tuple(counts)

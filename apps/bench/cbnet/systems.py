"""Which systems there are: the published ones, and those that are searched through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from phoneward.apps.bench.cbnet.records import System
from phoneward.export.models import find
from phoneward.export.models.cbnet.networks import LightNet
from phoneward.export.models.cbnet.settings import LightSize, Settings, settings_of
from phoneward.export.train.cbnet.batches import as_tensor
from phoneward.export.train.cbnet.easy_hard import choose_exit_entropy, classes_of, judge
from phoneward.export.train.cbnet.files import read
from phoneward.export.train.cbnet.run import NETWORKS, cut
from phoneward.names import Precision

if TYPE_CHECKING:
    from phoneward.export.train.cbnet.easy_hard import Judged
    from phoneward.export.train.cbnet.training import Training
    from phoneward.export.train.data.dataset import Split

AUTOENCODERS: tuple[tuple[int, ...], ...] = ((256, 64), (128, 32), (64,))
LIGHTS = (
    LightSize(stem=4, branch=8, downsampling="stride"),
    LightSize(stem=8, branch=16, downsampling="stride"),
    LightSize(stem=16, branch=32, downsampling="stride"),
)
BRANCHYNET_CHOSEN = "branchynet, exit chosen"
RIVALS = ("lenet", "branchynet", BRANCHYNET_CHOSEN)
"""What a system must be as accurate as, and faster than."""
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
        found.append(self._tuned("branchynet", "branchynet", BRANCHYNET_CHOSEN, None))
        if self.training.plan.hybrid is not None:
            self.training.exit_hybrid(self.training.plan.hybrid)
            least = max(
                self._accuracy("lenet", "lenet"),
                self._accuracy("branchynet", "branchynet"),
                self._accuracy("branchynet", "branchynet-chosen"),
            )
            found.append(self._tuned("exit_hybrid", "exit_hybrid", "exit + hybrid", least))
        return found

    def _tuned(self, model: str, file: str, name: str, least: float | None) -> System:
        """Choose the exit entropy on one half of the held-out images: the highest still so good.

        Without `least` it may cost 0.1 % of the accuracy at the end.
        """
        settings = cast(Settings, settings_of(self._file(file)))
        network = read(model, self._file(file), settings)
        half = first_half(self.training.held_out)
        judged = judge(network, as_tensor(half))
        chosen = choose_exit_entropy(judged, half.classes, least)
        own = settings.model_copy(update={"exit_entropy": chosen})
        self.training.save(network, f"{file}-chosen", own)
        return self._system(name, model, f"{file}-chosen")

    def _accuracy(self, model: str, file: str) -> float:
        settings = cast(Settings, settings_of(self._file(file)))
        network = read(model, self._file(file), settings)
        half = first_half(self.training.held_out)
        images = as_tensor(half)
        if model == "branchynet":
            found = judge(network, images).answers(settings.exit_entropy)
        else:
            found = classes_of(network, images)
        return float((found == half.classes).mean())

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


def first_half(split: Split) -> Split:
    """Every other image: exit entropies are chosen on these."""
    return split.take(np.arange(0, len(split), 2))


def second_half(split: Split) -> Split:
    """The others: systems are chosen on these."""
    return split.take(np.arange(1, len(split), 2))


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

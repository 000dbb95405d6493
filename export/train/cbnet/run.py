"""The whole of `phoneward train cbnet`: train, cut, convert, test, write down."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phoneward.export.cache import versions
from phoneward.export.models.cbnet.networks import LightNet
from phoneward.export.train.cbnet.batches import as_tensor
from phoneward.export.train.cbnet.easy_hard import classes_of, judge
from phoneward.export.train.cbnet.plan import Plan
from phoneward.export.train.cbnet.record import FILE, Exits, Outcome, Record
from phoneward.export.train.cbnet.training import Training
from phoneward.export.train.folder import claimed, write_whole

if TYPE_CHECKING:
    from torch import Tensor, nn

    from phoneward.export.models.cbnet.networks import BranchyNet
    from phoneward.export.train.data.dataset import Dataset, Split
    from phoneward.export.train.loop import Report

NETWORKS = ("lenet", "branchynet", "cbnet_light", "cbnet")
"""What every training writes, as `<name>.safetensors`; with a hybrid also `exit_hybrid`."""


def run(dataset: Dataset, plan: Plan, folder: Path, report: Report) -> Record:
    """Train every network of the plan in `folder`, or what is still missing; returns the record.

    Raises:
        InvalidSpec: the folder holds another training, another process is at work in it, or its
            checkpoints or weights are damaged.
        OSError: it cannot be written.
    """
    started = time.perf_counter()
    training = Training(dataset, plan, folder, report)
    with claimed(folder, training.identity):
        record = _trained(training, started)
        write_whole(folder / FILE, (record.model_dump_json(indent=2) + "\n").encode())
    return record


def _trained(training: Training, started: float) -> Record:
    dataset, plan = training.dataset, training.plan
    lenet, branchynet = training.lenet(), training.branchynet()
    settings = training.settled(branchynet)
    training.save(branchynet, "branchynet", settings)
    light = cut(branchynet, len(dataset.labels))
    training.save(light, "cbnet_light", settings)
    judged = training.judged(branchynet)
    cbnet = training.cbnet("cbnet", settings, light, judged)
    networks = _Networks(
        {"lenet": lenet, "cbnet_light": light, "cbnet": cbnet},
        (branchynet, settings.exit_entropy),
    )
    if plan.hybrid is not None:
        hybrid, own = training.exit_hybrid(plan.hybrid)
        networks = replace(networks, exit_hybrid=(hybrid, own.exit_entropy))
    hard = judged.entropies >= settings.exit_entropy
    training.report("test", 0, 1)
    record = Record(
        data=dataset.name,
        seed=plan.seed,
        settings=settings,
        train_images=len(training.rest),
        held_out_images=len(training.held_out),
        test_images=len(dataset.test),
        test=networks.outcome(dataset.test),
        held_out=networks.outcome(training.held_out),
        hard_per_class={
            label: int(hard[training.rest.classes == index].sum())
            for index, label in enumerate(dataset.labels)
        },
        hard_rate=float(hard.mean()),
        targets=tuple(training.places[training.targets(judged)].tolist()),
        losses=training.losses,
        tools=versions(("torch", "timm", "numpy")),
        seconds=time.perf_counter() - started,
    )
    training.report("test", 1, 1)
    return record


@dataclass(frozen=True)
class _Networks:
    """What is judged: networks by name, and those with an exit, each with its entropy."""

    plain: Mapping[str, nn.Module]
    branchynet: tuple[nn.Module, float]
    exit_hybrid: tuple[nn.Module, float] | None = None

    def outcome(self, split: Split) -> Outcome:
        images = as_tensor(split)
        return Outcome(
            accuracies={
                name: float((classes_of(model, images) == split.classes).mean())
                for name, model in self.plain.items()
            },
            branchynet=_exits(*self.branchynet, images, split),
            exit_hybrid=_exits(*self.exit_hybrid, images, split) if self.exit_hybrid else None,
        )


def cut(branchynet: BranchyNet, classes: int) -> LightNet:
    """Return BranchyNet cut at its exit."""
    light = LightNet(classes)
    light.stem.load_state_dict(branchynet.stem.state_dict())
    light.branch.load_state_dict(branchynet.branch.state_dict())
    light.eval()
    return light


def _exits(model: nn.Module, exit_entropy: float, images: Tensor, split: Split) -> Exits:
    judged = judge(model, images)
    right = {
        "accuracy": judged.answers(exit_entropy),
        "accuracy_at_exit": judged.at_exit,
        "accuracy_at_end": judged.at_end,
    }
    shares = {name: float(np.mean(found == split.classes)) for name, found in right.items()}
    rate = judged.exit_rate(exit_entropy)
    return Exits(exit_entropy=exit_entropy, exit_rate=rate, **shares)

"""The whole of `phoneward train cbnet`: train, cut, convert, test, write down."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phoneward.errors import InvalidSpec
from phoneward.export.cache import versions
from phoneward.export.models.cbnet.networks import LightNet
from phoneward.export.train.cbnet.batches import as_tensor
from phoneward.export.train.cbnet.easy_hard import classes_of, judge
from phoneward.export.train.cbnet.plan import Plan
from phoneward.export.train.cbnet.record import FILE, Exits, Record
from phoneward.export.train.cbnet.training import Training

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
        InvalidSpec: the folder's checkpoints or weights are damaged or of another training.
    """
    started = time.perf_counter()
    training = Training(dataset, plan, folder, report)
    lenet, branchynet = training.lenet(), training.branchynet()
    settings = training.settled(branchynet)
    training.save(branchynet, "branchynet", settings)
    light = cut(branchynet, len(dataset.labels))
    training.save(light, "cbnet_light", settings)
    judged = training.judged(branchynet)
    cbnet = training.cbnet("cbnet", settings, light, judged)
    hard = judged.entropies >= settings.exit_entropy
    report("test", 0, 1)
    images = as_tensor(dataset.test)
    accuracies = {
        "lenet": _accuracy(lenet, images, dataset.test),
        "cbnet_light": _accuracy(light, images, dataset.test),
        "cbnet": _accuracy(cbnet, images, dataset.test),
    }
    exits = _exits(branchynet, images, dataset.test, settings.exit_entropy)
    hybrid_exits = None
    if plan.hybrid is not None:
        hybrid, own = training.exit_hybrid(plan.hybrid)
        hybrid_exits = _exits(hybrid, images, dataset.test, own.exit_entropy)
    record = Record(
        data=dataset.name,
        seed=plan.seed,
        settings=settings,
        train_images=len(training.rest),
        held_out_images=len(training.held_out),
        test_images=len(dataset.test),
        accuracies=accuracies,
        branchynet=exits,
        exit_hybrid=hybrid_exits,
        hard_per_class={
            label: int(hard[training.rest.classes == index].sum())
            for index, label in enumerate(dataset.labels)
        },
        hard_rate=float(hard.mean()),
        targets=tuple(training.targets(judged).tolist()),
        losses=_all_losses(folder, training.losses),
        tools=versions(("torch", "timm", "numpy")),
        seconds=time.perf_counter() - started,
    )
    (folder / FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    report("test", 1, 1)
    return record


def read_record(folder: Path) -> Record:
    """Read what a training wrote; raises `InvalidSpec` if there is none, or not this version's."""
    file = folder / FILE
    try:
        return Record.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidSpec(f"{file}: not the record of a training") from error


def cut(branchynet: BranchyNet, classes: int) -> LightNet:
    """Return BranchyNet cut at its exit."""
    light = LightNet(classes)
    light.stem.load_state_dict(branchynet.stem.state_dict())
    light.branch.load_state_dict(branchynet.branch.state_dict())
    light.eval()
    return light


def _accuracy(model: nn.Module, images: Tensor, split: Split) -> float:
    return float((classes_of(model, images) == split.classes).mean())


def _exits(model: nn.Module, images: Tensor, split: Split, exit_entropy: float) -> Exits:
    judged = judge(model, images)
    right = {
        "accuracy": judged.answers(exit_entropy),
        "accuracy_at_exit": judged.at_exit,
        "accuracy_at_end": judged.at_end,
    }
    shares = {name: float(np.mean(found == split.classes)) for name, found in right.items()}
    rate = judged.exit_rate(exit_entropy)
    return Exits(exit_entropy=exit_entropy, exit_rate=rate, **shares)


def _all_losses(folder: Path, found: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """Losses of networks that an earlier run finished stand in its record."""
    if not (folder / FILE).exists():
        return found
    return {**read_record(folder).losses, **found}

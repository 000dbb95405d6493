"""Gradient descent that can be interrupted after any epoch and goes on as if it had not been."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from phoneward.errors import InvalidSpec

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn, optim
    from torch.optim.swa_utils import AveragedModel

    from phoneward.export.train.checkpoint import Checkpoint

Batch = TypeVar("Batch")
Made = TypeVar("Made", covariant=True)


class Batches(Protocol[Made]):
    """The batches of one epoch: how many there are is known before they are made."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Made]: ...


Epoch = Callable[["Generator"], Batches[Batch]]
"""Makes the batches of one epoch; all chance in it comes from the generator."""
Report = Callable[[str, int, int], None]
"""Is told what is under way, how much of it is done, and of how much."""

_WARM_UP = 0.1


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: a rate that rises for a tenth of the steps, then falls by a cosine.

    Attributes:
        epochs: passes over the images.
        batch: images a step.
        rate: the highest learning rate.
        decay: weight decay.
        clip: the most that the norm of all gradients may be; None: whatever it is.
        end: what is left of the rate at the end, as a share of it.
    """

    epochs: int
    batch: int = 256
    rate: float = 2e-3
    decay: float = 1e-2
    clip: float | None = None
    end: float = 0.0

    def rate_at(self, done: float) -> float:
        """Return the learning rate when a share `done` (0 to 1) of the steps is done."""
        if done < _WARM_UP:
            return self.rate * done / _WARM_UP
        falling = 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))
        return self.rate * (self.end + (1 - self.end) * falling)


@dataclass(frozen=True)
class Phase:
    """One thing to train.

    Attributes:
        name: of what is under way, for people.
        schedule: how long and how fast.
        seed: of all that is left to chance.
        rates: share of the learning rate for parameters whose names begin so; 0 keeps them as they
            are.
        muon: whether matrices take Muon's steps; what has one axis does not decay then.
        average: what a step leaves of the running mean of the weights, which is what the phase
            ends with (Polyak averaging); 0: it ends with the last weights.
    """

    name: str
    schedule: Schedule
    seed: int
    rates: Mapping[str, float] = field(default_factory=dict)
    muon: bool = False
    average: float = 0.0


def fit(
    model: nn.Module,
    epoch: Epoch[Batch],
    loss: Callable[[Batch], Tensor],
    phase: Phase,
    checkpoint: Checkpoint,
    report: Report,
) -> list[float]:
    """Train `model` in place; returns the mean loss of each epoch.

    The chance of an epoch depends on the seed and the epoch's number alone, so that a training
    that goes on from a checkpoint ends with the weights of one that was never interrupted, on the
    same machine with the same number of threads.

    Raises:
        InvalidSpec: the checkpoint is of something else; or the loss or a weight is not finite.
    """
    import torch

    schedule = phase.schedule
    optimizer = optimizer_of(model, phase)
    average = _average(model, phase.average) if phase.average else None
    losses = checkpoint.restore(model, optimizer, average and average.module)

    def after() -> None:
        if average:
            average.update_parameters(model)

    model.train()
    for number in range(len(losses), schedule.epochs):
        report(phase.name, number, schedule.epochs)
        generator = torch.Generator().manual_seed(_seed(phase.seed, number))
        torch.manual_seed(_seed(phase.seed, number))  # of whatever draws inside the model
        losses.append(_epoch(epoch(generator), loss, optimizer, (schedule, number), after))
        if not math.isfinite(losses[-1]):
            raise InvalidSpec(f"{phase.name}: the loss of epoch {number + 1} is {losses[-1]}")
        # its last step is in no loss yet
        if not all(bool(each.isfinite().all()) for each in model.parameters()):
            raise InvalidSpec(f"{phase.name}: after epoch {number + 1} weights are not finite")
        checkpoint.save(model, optimizer, losses, average and average.module)
    if average:
        model.load_state_dict(average.module.state_dict())
    report(phase.name, schedule.epochs, schedule.epochs)
    model.eval()
    return losses


def optimizer_of(model: nn.Module, phase: Phase) -> optim.AdamW:
    """AdamW, or Muon, over the parameters by what they need; those without a rate are frozen."""
    import torch

    from phoneward.export.train.muon import Muon, is_matrix

    groups: dict[tuple[object, ...], dict[str, Any]] = {}
    for path, parameter in model.named_parameters():
        share = next((rate for start, rate in phase.rates.items() if path.startswith(start)), 1.0)
        parameter.requires_grad_(share > 0)
        if share == 0:
            continue
        settings: dict[str, Any] = {"share": share, "weight_decay": phase.schedule.decay}
        if phase.muon:
            owner, _, name = path.rpartition(".")
            settings["matrices"] = is_matrix(model.get_submodule(owner), name)
            settings["weight_decay"] *= parameter.ndim > 1
        group = groups.setdefault(tuple(settings.values()), {"params": [], **settings})
        group["params"].append(parameter)
    kind = Muon if phase.muon else torch.optim.AdamW
    return kind(list(groups.values()), weight_decay=phase.schedule.decay)


def _epoch(
    batches: Batches[Batch],
    loss: Callable[[Batch], Tensor],
    optimizer: optim.Optimizer,
    place: tuple[Schedule, int],
    after: Callable[[], None],
) -> float:
    import torch

    schedule, number = place
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    total = 0.0
    for step, batch in enumerate(batches):
        done = (number + step / len(batches)) / schedule.epochs
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate_at(done) * group["share"]
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        if schedule.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, schedule.clip)
        optimizer.step()
        after()
        total += value.item()
    return total / len(batches)


def _average(model: nn.Module, kept: float) -> AveragedModel:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(kept), use_buffers=True)
    average.update_parameters(model)  # the first time it copies
    return average


def _seed(seed: int, epoch: int) -> int:
    # one of them may be 0
    return 1 + 100_003 * seed + epoch

"""Gradient descent that can be interrupted after any epoch and goes on as if it had not been."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phoneward.errors import InvalidSpec

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn, optim

    from phoneward.export.train.checkpoint import Checkpoint

Batch = tuple["Tensor", ...]
Epoch = Callable[["Generator"], Iterator[Batch]]
"""Yields the batches of one epoch; all chance in it comes from the generator."""
Report = Callable[[str, int, int], None]
"""Is told what is under way, how much of it is done, and of how much."""

_WARM_UP = 0.1


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: AdamW, a rate that rises for a tenth of the steps, then a cosine.

    Attributes:
        epochs: passes over the images.
        batch: images a step.
        rate: the highest learning rate.
        decay: weight decay.
    """

    epochs: int
    batch: int = 256
    rate: float = 2e-3
    decay: float = 1e-2

    def rate_at(self, done: float) -> float:
        """Return the learning rate when a share `done` (0 to 1) of the steps is done."""
        if done < _WARM_UP:
            return self.rate * done / _WARM_UP
        return self.rate * 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))


@dataclass(frozen=True)
class Phase:
    """One thing to train: its name, its schedule, the seed of all its chance."""

    name: str
    schedule: Schedule
    seed: int


def fit(
    model: nn.Module,
    epoch: Epoch,
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
        InvalidSpec: the checkpoint is of something else; or the loss is not finite.
    """
    import torch

    schedule = phase.schedule
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=schedule.decay)
    losses = checkpoint.restore(model, optimizer)
    model.train()
    for number in range(len(losses), schedule.epochs):
        report(phase.name, number, schedule.epochs)
        generator = torch.Generator().manual_seed(_seed(phase.seed, number))
        torch.manual_seed(_seed(phase.seed, number))  # of whatever draws inside the model
        losses.append(_epoch(model, list(epoch(generator)), loss, optimizer, (schedule, number)))
        if not math.isfinite(losses[-1]):
            raise InvalidSpec(f"{phase.name}: the loss of epoch {number + 1} is {losses[-1]}")
        checkpoint.save(model, optimizer, losses)
    report(phase.name, schedule.epochs, schedule.epochs)
    model.eval()
    return losses


def _epoch(
    model: nn.Module,
    batches: list[Batch],
    loss: Callable[[Batch], Tensor],
    optimizer: optim.Optimizer,
    place: tuple[Schedule, int],
) -> float:
    schedule, number = place
    total = 0.0
    for step, batch in enumerate(batches):
        done = (number + step / len(batches)) / schedule.epochs
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate_at(done)
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        optimizer.step()
        total += value.item()
    return total / len(batches)


def _seed(seed: int, epoch: int) -> int:
    # one of them may be 0
    return 1 + 100_003 * seed + epoch

"""Which images are easy: those that leave at the exit; and the easiest of each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_AT_ONCE = 2000
# of accuracy on held-out images; what an exit entropy that nobody published may cost
_MAY_COST = 0.001


@dataclass(frozen=True)
class Judged:
    """What a network with an exit says of N images.

    Attributes:
        entropies: (N,) float64, of the exit's softmax, in nats.
        at_exit: (N,) the exit's class.
        at_end: (N,) the class at the end.
    """

    entropies: NDArray[np.float64]
    at_exit: NDArray[np.int64]
    at_end: NDArray[np.int64]

    def answers(self, exit_entropy: float) -> NDArray[np.int64]:
        """Return the class of each: the exit's where its entropy is below `exit_entropy`."""
        return np.where(self.entropies < exit_entropy, self.at_exit, self.at_end)

    def exit_rate(self, exit_entropy: float) -> float:
        """Return the share that leaves at the exit."""
        return float((self.entropies < exit_entropy).mean())


def judge(model: nn.Module, images: Tensor) -> Judged:
    """Run a network that returns the logits of its exit and of its end."""
    both = [_logits(model, part) for part in images.split(_AT_ONCE)]
    early, late = (torch.cat(parts) for parts in zip(*both, strict=True))
    logs = early.double().log_softmax(1)
    entropies = -(logs.exp() * logs).sum(1)
    return Judged(entropies.numpy(), early.argmax(1).numpy(), late.argmax(1).numpy())


def classes_of(model: nn.Module, images: Tensor) -> NDArray[np.int64]:
    """Return the best class (N,) of a network that returns logits, or logits and more."""
    found = [_logits(model, part)[0].argmax(1) for part in images.split(_AT_ONCE)]
    return np.asarray(torch.cat(found).numpy())


def easiest(judged: Judged, classes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return for each of `count` classes the index of the image with the lowest entropy.

    Only images count that the exit classifies correctly; of a class without any, those that it
    does not.
    """
    correct = judged.at_exit == classes
    chosen = []
    for one in range(count):
        candidates = np.flatnonzero(correct & (classes == one))
        if not len(candidates):
            candidates = np.flatnonzero(classes == one)
        chosen.append(candidates[judged.entropies[candidates].argmin()])
    return np.array(chosen, np.int64)


def choose_exit_entropy(
    judged: Judged, classes: NDArray[np.int64], least: float | None = None
) -> float:
    """Return the highest exit entropy whose accuracy on these images is at least `least`.

    They must be held out from training. Without `least` it is the accuracy at the end less 0.001.
    Where no entropy reaches it, the one of the highest accuracy is taken.
    """
    if least is None:
        least = float((judged.at_end == classes).mean()) - _MAY_COST
    order = np.argsort(judged.entropies, kind="stable")
    early = (judged.at_exit == classes)[order]
    late = (judged.at_end == classes)[order]
    # after the n easiest have left: what the exit gets right of them, and the end of the others
    right = np.concatenate([[0], early.cumsum()]) + np.concatenate([late[::-1].cumsum()[::-1], [0]])
    accuracy = right / len(classes)
    entropies = judged.entropies[order]
    # equal entropies leave together
    possible = np.concatenate([[True], entropies[1:] > entropies[:-1], [True]])
    reached = np.flatnonzero(possible & (accuracy >= least))
    leaving = int(reached[-1]) if len(reached) else int(np.where(possible, accuracy, -1).argmax())
    if leaving == len(order):
        return float(entropies[-1]) * 1.01 + 1e-6
    return float(entropies[leaving])


def _logits(model: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        answers = model(images)
    return (answers,) if isinstance(answers, Tensor) else tuple(answers)

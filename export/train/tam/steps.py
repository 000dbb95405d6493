"""A line of figures for each step, which the learning curve is drawn from."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from phoneward.export.train.tam.losses import iou

if TYPE_CHECKING:
    from torch import Tensor

    from phoneward.export.train.tam.unroll import Guess

COLUMNS = ("seconds", "loss", "first_iou", "last_iou", "presence")


class Steps:
    """Appends to a CSV file; what is measured is what the model has not seen before.

    `first_iou` and `last_iou` are means over the objects of the chosen candidate's IoU on the first
    and the last frame (0 to 1); `presence` is the share of last frames on which it is right about
    whether the object is in sight.
    """

    def __init__(self, path: Path) -> None:
        new = not path.exists()
        self._file = path.open("a", newline="")
        self._writer = csv.writer(self._file)
        if new:
            self._writer.writerow(COLUMNS)
        self._began = time.perf_counter()

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, loss: Tensor, guesses: list[Guess], truth: Tensor) -> None:
        """Note a step."""
        first, last = guesses[0], guesses[-1]
        row = [
            time.perf_counter() - self._began,
            loss.item(),
            chosen_iou(first, truth),
            chosen_iou(last, truth),
            _presence(last, truth),
        ]
        self._writer.writerow([f"{value:.4f}" for value in row])
        self._file.flush()


def chosen_iou(guess: Guess, truth: Tensor) -> float:
    """Mean IoU of the candidates that the model thinks best, where the object is in sight."""
    from torch.nn import functional as F

    side = guess.logits.shape[-1]
    target = F.interpolate(truth[:, guess.frame : guess.frame + 1], (side, side), mode="area")
    chosen = guess.ious.argmax(1, keepdim=True)
    found = iou(guess.logits, target).gather(1, chosen)[:, 0]
    seen = truth[:, guess.frame].amax((1, 2)) > 0
    return float(found[seen].mean()) if bool(seen.any()) else 1.0


def _presence(guess: Guess, truth: Tensor) -> float:
    seen = truth[:, guess.frame].amax((1, 2)) > 0
    return float(((guess.score[:, 0] > 0) == seen).float().mean())

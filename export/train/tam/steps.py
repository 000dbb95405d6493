"""A line of figures for each step, which the learning curve is drawn from."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import TYPE_CHECKING

from phoneward.closing import Closing
from phoneward.export.train.tam.losses import iou

if TYPE_CHECKING:
    from torch import Tensor

    from phoneward.export.train.tam.unroll import Guess

COLUMNS = ("epoch", "step", "seconds", "loss", "first_iou", "last_iou", "presence")


class Steps(Closing):
    """Appends to a CSV file; what is measured are views that the model has not seen before.

    `epoch` is the number that an epoch's batches are drawn with: an epoch that was interrupted is
    there twice, and the later one counts. `seconds` are those of the process. `first_iou` is the
    mean over the objects of the IoU on the first frame (0 to 1) of the candidate for unambiguous
    prompts, `last_iou` that of the chosen candidate on the last frame, before a correction (of a
    single picture it is `first_iou`); `presence` is the share of last frames on which the model is
    right about whether the object is in sight.
    """

    def __init__(self, path: Path) -> None:
        before = path.read_bytes() if path.exists() else b""
        self._file = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        if before and not before.endswith(b"\n"):  # a line that was cut short
            self._file.write("\n")
        if not before:
            self._writer.writerow(COLUMNS)
        self._began = time.perf_counter()
        self._epoch = self._step = 0

    def begin(self, epoch: int) -> None:
        """Note that an epoch begins."""
        self._epoch, self._step = epoch, 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def write(self, loss: Tensor, guesses: list[Guess], truth: Tensor) -> None:
        """Note a step."""
        first = guesses[0]
        tracked = [one for one in guesses if one.frame and not one.corrected]
        last = tracked[-1] if tracked else first
        row = [
            time.perf_counter() - self._began,
            loss.item(),
            chosen_iou(first, truth),
            chosen_iou(last, truth),
            _presence(last, truth),
        ]
        self._writer.writerow([self._epoch, self._step, *(f"{value:.4f}" for value in row)])
        self._file.flush()
        self._step += 1


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

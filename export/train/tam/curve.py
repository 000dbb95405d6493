"""The learning curve of a training as a picture."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phoneward.errors import MissingExtra
from phoneward.export.train.tam.steps import COLUMNS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.export.train.tam.plan import Part
    from phoneward.export.train.tam.run import Training

FILE = "curve.png"
_WINDOW = 25


def draw(training: Training) -> Path:
    """Draw loss and IoU over the steps of all parts, smoothed; returns the file.

    Raises:
        MissingExtra: matplotlib is not installed.
        OSError: the folder cannot be read or written.
    """
    require()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    losses, ious = figure.subplots(2, 1, sharex=True)
    start = 0
    for number, part in enumerate(training.curriculum):
        rows = read(training.folder / f"{number}-{part.name}.csv")
        steps = start + np.arange(len(rows["loss"]))
        losses.plot(steps, smooth(rows["loss"]), color="C0")
        longest = of_the_longest(part, rows["step"])
        ious.plot(steps[longest], smooth(rows["first_iou"][longest]), color="C1")
        if part.frames > 1:
            ious.plot(steps[longest], smooth(rows["last_iou"][longest]), color="C2")
        for axes in (losses, ious):
            axes.axvline(start, color="0.8", linewidth=0.8)
        losses.annotate(
            f"{part.name}, {part.size} px, {part.frames} fr.",
            (start, 1.03),
            xycoords=("data", "axes fraction"),
            rotation=35,
            fontsize=7,
        )
        start += len(steps)
    losses.set_ylabel("loss")
    ious.set_ylabel("IoU, before the step")
    ious.set_xlabel("step")
    ious.set_ylim(0, 1)
    lines = [ious.plot([], color=color)[0] for color in ("C1", "C2")]
    ious.legend(lines, ("first", "last"), title="frame", loc="lower right")
    file = training.folder / FILE
    figure.savefig(file, dpi=120)
    return file


def require() -> None:
    """Raise `MissingExtra` if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("matplotlib", "report")


def read(path: Path) -> dict[str, NDArray[np.float64]]:
    """Return the columns of the figures that a part of a training wrote, a row a step.

    Of a step that was done twice the later row counts, and one that was cut short does not.
    """
    rows: dict[tuple[str, str], list[float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            if len(row) == len(COLUMNS) and row[0] != COLUMNS[0]:
                rows[row[0], row[1]] = [float(value) for value in row]
    table = np.array(list(rows.values())).reshape(-1, len(COLUMNS))
    return dict(zip(COLUMNS, table.T, strict=True))


def of_the_longest(part: Part, steps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which steps of an epoch saw the longest clips; the last frame of others is nearer."""
    lengths = np.array([each.frames for each in part.samplings])
    found: NDArray[np.bool_] = lengths[steps.astype(int) % len(lengths)] == part.frames
    return found


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each value and up to 24 before it."""
    sums = np.cumsum(np.concatenate(([0.0], values)))
    last = np.arange(1, len(sums))
    first = np.maximum(0, last - _WINDOW)
    means: NDArray[np.float64] = (sums[last] - sums[first]) / (last - first)
    return means

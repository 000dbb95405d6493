"""How well latencies are predicted whose model was left out: folds, protocols, baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phoneward.profiles.predict.fit import fit_prior
from phoneward.profiles.predict.process import leave_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.profiles.predict.process import Prior
    from phoneward.profiles.predict.rows import Observations, Row

    Array = NDArray[np.float64]
    Indices = NDArray[np.intp]

FOLDS = 6
_STEPS = 40


@dataclass(frozen=True, eq=False)
class Scores:
    """Predictions of left-out rows: log latency, and its standard deviation."""

    mean: Array
    std: Array


# which rows must be unknown when some rows of one model in one group are predicted
Hidden = Callable[["Sequence[Row]", int], "list[int]"]


def known_elsewhere(rows: Sequence[Row], asked: int) -> list[int]:
    """Hide the model in this group alone: other devices, runtimes and precisions may know it."""
    one = rows[asked]
    return [i for i, row in enumerate(rows) if row.model == one.model and row.group == one.group]


def nowhere(rows: Sequence[Row], asked: int) -> list[int]:
    """Hide the model everywhere, and in this group all of its architecture, whatever the size."""
    one = rows[asked]
    return [
        i
        for i, row in enumerate(rows)
        if row.model == one.model
        or (row.architecture == one.architecture and row.group == one.group)
    ]


def no_relative(rows: Sequence[Row], asked: int) -> list[int]:
    """Hide the whole architecture everywhere."""
    one = rows[asked]
    return [i for i, row in enumerate(rows) if row.architecture == one.architecture]


def no_device(rows: Sequence[Row], asked: int) -> list[int]:
    """Hide all rows of the device."""
    return [i for i, row in enumerate(rows) if row.group.device == rows[asked].group.device]


PROTOCOLS: dict[str, Hidden] = {
    "known elsewhere": known_elsewhere,
    "left out everywhere": nowhere,
    "architecture left out everywhere": no_relative,
}


def folds(observed: Observations, count: int = FOLDS) -> list[Indices]:
    """Deal architectures, the most frequent first, to folds of about equal size."""
    names = [row.architecture for row in observed.rows]
    sizes: list[int] = [0] * count
    fold_of: dict[str, int] = {}
    for name in sorted(set(names), key=lambda n: (-names.count(n), n)):
        smallest = sizes.index(min(sizes))
        fold_of[name] = smallest
        sizes[smallest] += names.count(name)
    assigned = np.array([fold_of[name] for name in names])
    return [np.flatnonzero(assigned == fold) for fold in range(count)]


def fold_priors(observed: Observations, start: Prior) -> list[tuple[Indices, Prior]]:
    """Fit prices and variances for each fold on the rows of the other folds alone."""
    everything = np.arange(len(observed.rows))
    found = []
    for fold in folds(observed):
        rest = observed.take(np.setdiff1d(everything, fold).tolist())
        found.append((fold, fit_prior(rest, start.variances, _STEPS)))
    return found


def score(
    observed: Observations, priors: Sequence[tuple[Indices, Prior]], hidden: Hidden
) -> Scores:
    """Predict every row from rows that are not hidden, with what its fold's prior learned."""
    mean, std = np.full(len(observed.rows), np.nan), np.full(len(observed.rows), np.nan)
    for fold, prior in priors:
        inverse = prior.precision(observed.points, observed.noise)
        before = prior.mean(observed.points)
        residual = observed.log_ms - before
        weights = inverse @ residual
        for asked in fold:
            if not np.isnan(mean[asked]):
                continue
            out = np.array(hidden(observed.rows, int(asked)))
            guess, variance = leave_out(inverse, weights, residual, out)
            for place, row in enumerate(out):
                same = observed.rows[row], observed.rows[asked]
                if same[0].model == same[1].model and same[0].group == same[1].group:
                    mean[row] = before[row] + guess[place]
                    std[row] = np.sqrt(variance[place])
    return Scores(mean, std)

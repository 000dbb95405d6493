"""How well latencies are predicted whose model was left out: folds, protocols, baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phoneward.profiles.predict.fit import fit_prior, prior_with
from phoneward.profiles.predict.process import leave_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.profiles.predict.process import Prior
    from phoneward.profiles.predict.rows import Observations

    Array = NDArray[np.float64]
    Indices = NDArray[np.intp]

FOLDS = 4
_STEPS = 15


@dataclass(frozen=True, eq=False)
class Scores:
    """Predictions of left-out rows: log latency, and its standard deviation."""

    mean: Array
    std: Array


@dataclass(frozen=True, eq=False)
class Keys:
    """Numbers that tell apart each row's model, group and architecture."""

    model: Indices
    group: Indices
    architecture: Indices


# which rows must be unknown when some rows of one model in one group are predicted
Hidden = Callable[[Keys, int], "NDArray[np.bool_]"]


def keys_of(observed: Observations) -> Keys:
    """Number the rows' models, groups and architectures."""
    names = sorted({row.architecture for row in observed.rows})
    architecture = np.array([names.index(row.architecture) for row in observed.rows])
    return Keys(observed.points.model, observed.points.group, architecture)


def known_elsewhere(keys: Keys, asked: int) -> NDArray[np.bool_]:
    """Hide the model in this group alone: other devices, runtimes and precisions may know it."""
    hidden = (keys.model == keys.model[asked]) & (keys.group == keys.group[asked])
    return np.asarray(hidden)


def nowhere(keys: Keys, asked: int) -> NDArray[np.bool_]:
    """Hide the model everywhere, and in this group all of its architecture, whatever the size."""
    sizes = (keys.architecture == keys.architecture[asked]) & (keys.group == keys.group[asked])
    return np.asarray(sizes | (keys.model == keys.model[asked]))


def no_relative(keys: Keys, asked: int) -> NDArray[np.bool_]:
    """Hide the whole architecture everywhere."""
    return np.asarray(keys.architecture == keys.architecture[asked])


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
    """Fit prices and variances without the rows that they will predict.

    Variances come from the rows outside a fold of architectures, prices from all rows but those
    of the one architecture that is predicted.

    Returns:
        The rows of each architecture with their prior.
    """
    everything = np.arange(len(observed.rows))
    keys = keys_of(observed)
    found = []
    for fold in folds(observed):
        rest = observed.take(np.setdiff1d(everything, fold).tolist())
        variances = fit_prior(rest, start.variances, _STEPS).variances
        for name in sorted(set(keys.architecture[fold].tolist())):
            others = observed.take(np.flatnonzero(keys.architecture != name).tolist())
            rows = np.flatnonzero(keys.architecture == name)
            found.append((rows, prior_with(others, variances)))
    return found


def score(
    observed: Observations, priors: Sequence[tuple[Indices, Prior]], protocols: Mapping[str, Hidden]
) -> dict[str, Scores]:
    """Predict every row from rows that are not hidden, with what its own prior learned."""
    keys, rows = keys_of(observed), len(observed.rows)
    scores = {name: Scores(np.full(rows, np.nan), np.full(rows, np.nan)) for name in protocols}
    for asked_rows, prior in priors:
        inverse = prior.precision(observed.points, observed.noise)
        before = prior.mean(observed.points)
        residual = observed.log_ms - before
        weights = inverse @ residual
        for name, hidden in protocols.items():
            for asked in asked_rows.tolist():
                if not np.isnan(scores[name].mean[asked]):
                    continue
                out = np.flatnonzero(hidden(keys, asked))
                guess, variance = leave_out(inverse, weights, residual, out)
                alike = known_elsewhere(keys, asked)[out]
                scores[name].mean[out[alike]] = before[out[alike]] + guess[alike]
                scores[name].std[out[alike]] = np.sqrt(variance[alike])
    return scores

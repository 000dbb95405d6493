"""How well a whole device is predicted that nobody had measured, and after ten measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from phoneward.apps.bench.predict_accuracy import accuracy
from phoneward.apps.bench.predict_records import Accuracy, Transfer
from phoneward.profiles.predict.fit import fit_prior
from phoneward.profiles.predict.process import leave_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.profiles.predict.process import Prior
    from phoneward.profiles.predict.rows import Observations, Row

    Array = NDArray[np.float64]
    Indices = NDArray[np.intp]

ANCHORS = (0, 5, 10)
FOLDS = 4
_UNITS = ("npu", "ane", "cpu", "gpu")
_LEAST_ROWS = 13
_DRAWS = 10
_STEPS = 15


def transfers(
    observed: Observations, start: Prior, say: Callable[[str], object]
) -> tuple[tuple[Transfer, ...], dict[str, Accuracy]]:
    """Leave out every chip's unit in turn, and give back some rows drawn at random.

    Prices and variances come from a fit without the chip: chips are dealt to FOLDS folds. A device
    that shares the chip's unit is left out with it. Without anchors a device is predicted from its
    class alone, and its speed from its year and the peak of its cores.
    """
    rows = observed.rows
    sizes = Counter(key for row in rows if (key := _chip(row))[0] in _UNITS)
    chips = [key for key, count in sizes.most_common() if count >= _LEAST_ROWS]
    everything = np.arange(len(rows))
    guesses: dict[tuple[str, str, int], list[tuple[Array, Array, Array]]] = {}
    for fold in range(FOLDS):
        left = chips[fold::FOLDS]
        say(f"fitting without {len(left)} of {len(chips)} chips")
        hidden = np.array([_chip(row) in left for row in rows])
        prior = fit_prior(observed.take(everything[~hidden].tolist()), start.variances, _STEPS)
        inverse = prior.precision(observed.points, observed.noise)
        before = prior.mean(observed.points)
        residual = observed.log_ms - before
        for chip in left:
            own = np.array([index for index, row in enumerate(rows) if _chip(row) == chip])
            for anchors in ANCHORS:
                for asked in _asked(own, anchors):
                    guess, variance = leave_out(inverse, inverse @ residual, residual, asked)
                    found = (observed.log_ms[asked], before[asked] + guess, np.sqrt(variance))
                    guesses.setdefault((*chip, anchors), []).append(found)
    listed = tuple(
        Transfer(device=soc, unit=unit, anchors=anchors, accuracy=_together(found))
        for (unit, soc, anchors), found in sorted(guesses.items())
    )
    return listed, _pooled(guesses)


def _pooled(
    guesses: dict[tuple[str, str, int], list[tuple[Array, Array, Array]]],
) -> dict[str, Accuracy]:
    pooled = {}
    for unit in _UNITS:
        for anchors in ANCHORS:
            found = [g for key, gs in guesses.items() if key[::2] == (unit, anchors) for g in gs]
            if found:
                pooled[f"{unit}, {anchors} anchors"] = _together(found)
    return pooled


def _together(found: Sequence[tuple[Array, Array, Array]]) -> Accuracy:
    truth, guess, std = (np.concatenate(part) for part in zip(*found, strict=True))
    return accuracy(truth, guess, std)


def _asked(own: Indices, anchors: int) -> list[Indices]:
    """Return the rows to predict, for each draw of anchors."""
    draws = _DRAWS if anchors else 1
    generators = [np.random.default_rng(seed) for seed in range(draws)]
    return [np.sort(rng.permutation(own)[anchors:]) for rng in generators]


def _chip(row: Row) -> tuple[str, str]:
    return row.group.unit, row.group.soc

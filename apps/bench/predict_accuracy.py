"""Errors of predictions, added up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phoneward.apps.bench.predict_records import Accuracy
from phoneward.profiles.predict.intervals import QUANTILE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_LEAST_FOR_RANK = 4


def accuracy(truth: Array, guess: Array, std: Array | None = None) -> Accuracy:
    """Add up the errors of log latencies; `std` is what their intervals are made of."""
    from scipy.stats import spearmanr

    errors = np.abs(np.expm1(guess - truth))
    rank = None
    if len(truth) >= _LEAST_FOR_RANK and np.ptp(guess) > 0 and np.ptp(truth) > 0:
        rank = round(float(spearmanr(truth, guess)[0]), 3)
    inside = None
    if std is not None:
        inside = round(float(np.mean(np.abs(guess - truth) <= QUANTILE * std)), 3)
    return Accuracy(
        rows=len(truth),
        median_error=round(float(np.median(errors)), 3),
        within_10=round(float(np.mean(errors <= 0.1)), 3),
        within_20=round(float(np.mean(errors <= 0.2)), 3),
        rank=rank,
        coverage=inside,
    )

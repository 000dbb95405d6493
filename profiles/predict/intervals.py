"""Intervals: of a log-normal latency, of a sum of them, and how wide they must be to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LEVEL = 0.9
"""Probability with which a measurement falls inside an interval."""
QUANTILE = 1.6448536
"""Of the normal distribution, for that level in the middle."""
_NARROWEST, _WIDEST = 0.8, 2.5


def of_sum(mean: Array, spread: Array, widening: float) -> tuple[float, tuple[float, float]]:
    """Return the median and interval of a sum of latencies, in milliseconds.

    The sum of correlated log-normal times is taken for log-normal with the variance that the sum
    has (Fenton, 1960), its median for the sum of the medians.

    Args:
        mean: of each log latency, (n,).
        spread: covariance of these, (n, n).
        widening: factor on the interval's logarithmic half width.
    """
    median = np.exp(mean)
    average = median * np.exp(np.diag(spread) / 2)
    variance = average @ np.expm1(spread) @ average
    std = float(np.sqrt(np.log1p(variance / average.sum() ** 2)))
    latency = float(median.sum())
    factor = float(np.exp(QUANTILE * widening * std))
    return latency, (latency / factor, latency * factor)


def widening(errors: Array, std: Array) -> float:
    """Return the factor on `std` with which LEVEL of the errors of left-out rows are inside.

    Split conformal prediction with the process' standard deviation as the measure of difficulty
    (Lei et al., 2018); the quantile is the one for a finite sample.
    """
    ratios = np.sort(np.abs(errors) / std)
    rank = min(len(ratios) - 1, int(np.ceil((len(ratios) + 1) * LEVEL)) - 1)
    return float(np.clip(ratios[rank] / QUANTILE, _NARROWEST, _WIDEST))


def widening_by_unit(units: Sequence[str], errors: Array, std: Array) -> dict[str, float]:
    """Return `widening` for each unit."""
    names = np.array(units)
    return {unit: widening(errors[names == unit], std[names == unit]) for unit in sorted({*units})}

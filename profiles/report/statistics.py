"""How sure a median, or the ratio of two medians, is; made for samples that resemble each other.

Successive inferences are correlated (the processor's clock, the scheduler), so samples are
resampled in circular blocks as long as the root of their number (Politis and Romano, A circular
block-resampling procedure, 1992). Medians of two processes differ by more than all the samples of
one can tell, so where there are several processes, a draw of Student's distribution with their
spread is added to each resampled median; resampling three processes themselves would give
intervals that are far too narrow. Simulated with samples of correlation 0.8, 95 % intervals cover
the truth in 96-98 % of cases from two or three processes of 50, in 86 % from one process of 200,
and in 78 % from one of 60: from a single process they are too narrow. The seed is fixed, so that
equal samples give equal intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
# of five samples not even the extremes enclose the median with 95 %
FEWEST = 6

_RESAMPLES = 1000
_AT_ONCE = 1_000_000
_SEED = 20250

Processes = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of the interval that holds what it estimates."""

    low: float
    estimate: float
    high: float

    def holds(self, value: float) -> bool:
        """Tell whether a value lies inside."""
        return self.low <= value <= self.high


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return a percentile (0 to 100) of samples, interpolated between neighbours."""
    return float(np.percentile(np.asarray(samples, np.float64), percent))


def median_interval(
    processes: Processes, level: float = LEVEL, seed: int = _SEED
) -> Interval | None:
    """Return the median of all samples and its interval, in the samples' unit.

    Args:
        processes: the samples (> 0) of each process, in the order in which they were taken.
        level: probability that the interval holds the median.
        seed: of the resampling.

    Returns:
        None of fewer than six samples.
    """
    if sum(map(len, processes)) < FEWEST:
        return None
    draws = _log_medians(processes, np.random.default_rng(seed))
    return _interval(_log_median(processes), draws, level)


def ratio_interval(
    after: Processes, before: Processes, level: float = LEVEL, seed: int = _SEED
) -> Interval | None:
    """Return the ratio of the medians, `after` over `before`, and its interval.

    Arguments as of `median_interval`; None where either side has fewer than six samples.
    """
    if min(sum(map(len, after)), sum(map(len, before))) < FEWEST:
        return None
    # one stream a side, so that two equal sides are not resampled alike
    random = [np.random.default_rng([seed, side]) for side in (0, 1)]
    draws = _log_medians(after, random[0]) - _log_medians(before, random[1])
    return _interval(_log_median(after) - _log_median(before), draws, level)


def _interval(centre: float, draws: NDArray[np.float64], level: float) -> Interval:
    rest = 50 * (1 - level)
    low, high = np.percentile(draws, (rest, 100 - rest))
    return Interval(math.exp(min(low, centre)), math.exp(centre), math.exp(max(high, centre)))


def _log_median(processes: Processes) -> float:
    return math.log(float(np.median(_pooled(processes))))


def _pooled(processes: Processes) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(samples, np.float64) for samples in processes])


def _log_medians(processes: Processes, random: np.random.Generator) -> NDArray[np.float64]:
    """Return resampled log medians of all samples, shape (resamples,)."""
    parts = [np.asarray(samples, np.float64) for samples in processes if len(samples)]
    rows = max(1, _AT_ONCE // sum(map(len, parts)))
    medians = []
    for start in range(0, _RESAMPLES, rows):
        count = min(rows, _RESAMPLES - start)
        resampled = [_in_blocks(samples, count, random) for samples in parts]
        medians.append(np.median(np.concatenate(resampled, axis=1), axis=1))
    draws: NDArray[np.float64] = np.log(np.concatenate(medians))
    if len(parts) > 1:
        logs = [math.log(float(np.median(samples))) for samples in parts]
        spread = float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
        draws += spread * random.standard_t(len(logs) - 1, _RESAMPLES)
    return draws


def _in_blocks(
    samples: NDArray[np.float64], count: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Return resamples (count, n) made of runs of neighbours, the first following the last."""
    n = len(samples)
    length = math.isqrt(n)
    starts = random.integers(0, n, (count, -(-n // length), 1))
    indices = (starts + np.arange(length)) % n
    chosen: NDArray[np.float64] = samples[indices.reshape(count, -1)[:, :n]]
    return chosen

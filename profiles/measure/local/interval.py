"""How far the same artifact may differ from process to process.

Addresses, thread placement and the machine's mood are drawn once a process, so that thousands of
samples of one process say nothing about the next one. The medians of several processes do: on a
logarithmic scale they are taken for draws of one normal distribution, and Student's prediction
interval says where one more lies (Hahn and Meeker, Statistical Intervals, 1991, section 4.3).

Processes that follow each other within seconds may have met the same mood. Where the machine
changes while they run, pieces of their runs differ more than their medians, and that counts
instead.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

FEWEST = 3
LEVEL = 0.95
PIECE = 5
"""Consecutive samples whose median is one look at the machine."""
# two-sided 95 % quantiles of Student's t by degrees of freedom; beyond, the last one is used
_T95 = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228}
_LAST = 10


def next_median(processes: Sequence[Sequence[float]]) -> tuple[int, int] | None:
    """Where the median of one more process lies with 95 %, in the unit of the samples (> 0).

    `processes` has the samples of each, in order. None of less than three processes.
    """
    if len(processes) < FEWEST:
        return None
    logs = [math.log(statistics.median(samples)) for samples in processes]
    pieces = [math.log(median) for samples in processes for median in _pieces(samples)]
    apart = max(statistics.stdev(each) for each in (logs, pieces) if len(each) > 1)
    spread = apart * math.sqrt(1 + 1 / len(logs))
    half = _T95[min(len(logs) - 1, _LAST)] * spread
    centre = statistics.fmean(logs)
    return math.floor(math.exp(centre - half)), math.ceil(math.exp(centre + half))


def _pieces(samples: Sequence[float]) -> list[float]:
    starts = range(0, len(samples) - PIECE + 1, PIECE)
    return [statistics.median(samples[start : start + PIECE]) for start in starts]

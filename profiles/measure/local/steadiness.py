"""Timing a call again and again: the warm-up, the samples, and a run of minutes."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from phoneward.profiles.report.schema import Window

WINDOW = 5
TOLERANCE = 0.03
AT_LEAST_S, AT_MOST_S = 0.3, 3.0
_WINDOWS = 24
_SHORTEST_WINDOW_S = 0.5


def warm_up(run: Callable[[], object]) -> tuple[int, bool]:
    """Run until two windows of five runs have medians within 3 %.

    For at least 0.3 s; given up after 3 s, but not before there were two windows. Returns the
    number of runs and whether they became steady.
    """
    durations: list[int] = []
    started = time.perf_counter()
    while True:
        durations.extend(sample(run, WINDOW))
        elapsed = time.perf_counter() - started
        steady = is_steady(durations)
        enough = len(durations) >= 2 * WINDOW
        if enough and ((steady and elapsed >= AT_LEAST_S) or elapsed >= AT_MOST_S):
            return len(durations), steady


def is_steady(durations: list[int]) -> bool:
    """Tell whether the medians of the last two windows are within the tolerance."""
    if len(durations) < 2 * WINDOW:
        return False
    last = statistics.median(durations[-WINDOW:])
    before = statistics.median(durations[-2 * WINDOW : -WINDOW])
    return abs(last - before) <= TOLERANCE * before


def sample(run: Callable[[], object], runs: int) -> tuple[int, ...]:
    """Duration of each of `runs` calls in nanoseconds, the garbage collector off."""
    samples = []
    with _no_collection():
        for _ in range(runs):
            started = time.perf_counter_ns()
            run()
            samples.append(time.perf_counter_ns() - started)
    return tuple(samples)


def sustain(run: Callable[[], object], seconds: float) -> tuple[Window, ...]:
    """Run for `seconds` without a pause; returns about 24 windows, none shorter than 0.5 s."""
    length = max(_SHORTEST_WINDOW_S, seconds / _WINDOWS)
    windows = []
    with _no_collection():
        begun = time.perf_counter_ns()
        while (start := time.perf_counter_ns() - begun) < 1e9 * seconds:
            windows.append(_window(run, begun, start, int(1e9 * length)))
    return tuple(windows)


def _window(run: Callable[[], object], begun: int, start: int, length: int) -> Window:
    durations: list[int] = []
    now = begun + start
    while not durations or now - begun - start < length:
        run()
        after = time.perf_counter_ns()
        durations.append(after - now)
        now = after
    p50, p90, p99 = (int(value) for value in np.percentile(durations, (50, 90, 99)))
    return Window(start_ns=start, runs=len(durations), p50_ns=p50, p90_ns=p90, p99_ns=p99)


@contextmanager
def _no_collection() -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()

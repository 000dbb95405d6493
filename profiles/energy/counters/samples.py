"""Readings taken in the background, and the integral of a power over a span."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Sample(Generic[T]):
    """A value and when it was read, in seconds of `time.monotonic`."""

    moment_s: float
    value: T


class Sampler(Generic[T]):
    """Reads once at once, then every `every_s` seconds in a thread, and once at the end."""

    def __init__(self, read: Callable[[], T], every_s: float) -> None:
        self._read, self._every_s = read, every_s
        self._samples = [self._sample()]
        self._enough = threading.Event()
        self._executor = ThreadPoolExecutor(1, "energy counter")
        self._loop = self._executor.submit(self._until_enough)

    def stop(self) -> list[Sample[T]]:
        """Return all samples in order, at least two; raises what a reading raised."""
        self._enough.set()
        try:
            self._loop.result()
        finally:
            self._executor.shutdown()
        return [*self._samples, self._sample()]

    def _until_enough(self) -> None:
        while not self._enough.wait(self._every_s):
            self._samples.append(self._sample())

    def _sample(self) -> Sample[T]:
        before = time.monotonic()
        value = self._read()
        # a reading over a cable takes a while; its middle is the best guess of the moment
        return Sample((before + time.monotonic()) / 2, value)


@dataclass(frozen=True)
class Window:
    """A span of time, in seconds of one clock, and the mean power in it."""

    start_s: float
    stop_s: float
    watts: float


def integrate(windows: Iterable[Window], start_s: float, stop_s: float) -> tuple[float, float]:
    """Return the energy in joules from `start_s` to `stop_s`, and the seconds that windows cover.

    A window that lies in the span in part counts in proportion. Windows are not expected to
    overlap.
    """
    joules = covered_s = 0.0
    for window in windows:
        inside_s = min(window.stop_s, stop_s) - max(window.start_s, start_s)
        if inside_s > 0:
            joules += window.watts * inside_s
            covered_s += inside_s
    return joules, covered_s


def windows_between(samples: Iterable[Sample[float]]) -> list[Window]:
    """Return the windows between momentary powers, each with the mean of its two ends."""
    return [
        Window(one.moment_s, other.moment_s, (one.value + other.value) / 2)
        for one, other in pairwise(samples)
    ]

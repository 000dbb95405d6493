"""How busy other processes kept the machine while something was timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from phoneward.apps.bench.turns import held
from phoneward.profiles.measure.local.noise import CALM, with_others

T = TypeVar("T")

_PROBE_S, _PAUSE_S, _PATIENCE_S = 1.0, 5.0, 300.0


def with_bystanders(work: Callable[[], T]) -> tuple[T, float | None]:
    """Run `work`, which waits for its child processes; also returns the cores others kept busy.

    The second is None where the system does not tell (no `/proc/stat`).
    """
    return with_others(work, _mine_s, shortest_s=0.0)


@contextmanager
def quiet(lock: Path | None) -> Iterator[None]:
    """Hold the lock, exclusively, from a moment on in which others leave the machine alone.

    While they do not, the lock is given back; after five minutes of that it is held anyway.
    """
    until = time.perf_counter() + _PATIENCE_S
    while True:
        with held(lock, exclusive=True):
            _, others = with_bystanders(lambda: time.sleep(_PROBE_S))
            if others is None or others <= CALM or time.perf_counter() > until:
                yield
                return
        time.sleep(_PAUSE_S)


def _mine_s() -> float:
    """Processor seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])

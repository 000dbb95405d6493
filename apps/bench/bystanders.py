"""How busy other processes kept the machine while something was timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from phoneward.apps.bench.turns import held

T = TypeVar("T")

CALM = 0.1
"""Cores that others may keep busy while something is timed."""
_PROBE_S, _PAUSE_S, _PATIENCE_S = 1.0, 5.0, 300.0

_STAT = Path("/proc/stat")
# user, nice, system, irq, softirq, and steal: what another machine on the same host took
_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)


def with_bystanders(work: Callable[[], T]) -> tuple[T, float | None]:
    """Run `work`, which waits for its child processes; also returns the cores others kept busy.

    The second is None where the system does not tell (no `/proc/stat`).
    """
    busy, mine, started = _busy_s(), _mine_s(), time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    after = _busy_s()
    if busy is None or after is None:
        return result, None
    return result, max(0.0, after - busy - (_mine_s() - mine)) / seconds


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


def _busy_s() -> float | None:
    """Processor seconds that all cores together have spent since the system started."""
    try:
        first = _STAT.read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None
    ticks = [int(field) for field in first.split()[1:]]
    return sum(ticks[field] for field in _BUSY_FIELDS) / os.sysconf("SC_CLK_TCK")


def _mine_s() -> float:
    """Processor seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])

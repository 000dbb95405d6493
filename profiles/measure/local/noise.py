"""What else happens on the machine while something is timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CALM = 0.1
"""Cores that others may keep busy while something is timed."""
UNEVEN = 1.25
"""p90 over p50 above which samples are called uneven."""
DRIFT = 0.1
"""Slow-down of a sustained run worth a warning."""

_STAT = Path("/proc/stat")
# the system counts busy time in hundredths of a second: of less than this it says nothing
_SHORTEST_S = 0.25
# user, nice, system, irq, softirq, and steal: what another machine on the same host took
_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)


def with_others(
    work: Callable[[], T],
    own_s: Callable[[], float] = time.process_time,
    shortest_s: float = _SHORTEST_S,
) -> tuple[T, float | None]:
    """Run `work`; also returns how many cores others kept busy meanwhile.

    `own_s` gives the processor seconds that count as our own, by default this process's. The
    second answer is None where the system does not tell (no `/proc/stat`), or `work` took less
    than `shortest_s`.
    """
    busy, mine, started = _busy_s(), own_s(), time.perf_counter()
    result = work()
    seconds, own = time.perf_counter() - started, own_s() - mine
    after = _busy_s()
    if busy is None or after is None or seconds < shortest_s:
        return result, None
    return result, max(0.0, after - busy - own) / seconds


def load_average() -> float | None:
    """Mean number of runnable processes in the last minute; None where unknown."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def before_warnings(load: float | None, facts: Mapping[str, str], cores: int) -> list[str]:
    """Say what may spoil figures that are yet to be taken."""
    found = []
    if load is not None and load > 0.5 * cores:
        found.append(f"the machine was busy before: load average {load:.1f} on {cores} cores")
    governor = facts.get("governor")
    if governor not in (None, "performance"):
        found.append(f"the frequency governor is '{governor}': clocks change with the load")
    return found


def others_warning(what: str, others: Iterable[float | None]) -> list[str]:
    """Say so if other processes were busy during some part of the timing."""
    worst = max((value for value in others if value is not None), default=0.0)
    if worst <= CALM:
        return []
    return [f"{what}: other processes kept up to {worst:.1f} cores busy meanwhile"]


def _busy_s() -> float | None:
    """Processor seconds that all cores together have spent since the system started."""
    try:
        first = _STAT.read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None
    ticks = [int(field) for field in first.split()[1:]]
    return sum(ticks[field] for field in _BUSY_FIELDS) / os.sysconf("SC_CLK_TCK")

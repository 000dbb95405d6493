"""Count the energy of work that is repeated until a counter can tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from phoneward.errors import InvalidSpec, PlaceError
from phoneward.profiles.energy.schema import MeasuredEnergy

if TYPE_CHECKING:
    from phoneward.profiles.energy.counters import Counter, Reading

T = TypeVar("T")

UPDATES = 100
"""Updates of a counter in the shortest span: one too many or too few at an end is 1 %."""
# the counter is read just before and just after the work; a busy machine may delay it
_SPANS_DIFFER = 0.05
_DELAY_S = 0.1


def measure(
    work: Callable[[], object],
    inferences: int,
    counter: Counter,
    *,
    at_least_s: float = 1.0,
    idle: bool = False,
) -> MeasuredEnergy:
    """Repeat work and count its energy.

    Everything that the machine does meanwhile is counted too: of this process, of others, and
    what it takes when it does nothing.

    Args:
        work: runs `inferences` inferences on the machine that the counter is of. It is repeated
            until `at_least_s` and 100 updates of the counter have passed. It should be warm.
        inferences: in one call of `work`.
        counter: an available one.
        at_least_s: seconds of work, at least.
        idle: afterwards do nothing for as long and count that, too; it is given beside the energy
            of the work, which holds it still.

    Raises:
        PlaceError: the counter is not available or did not move, or the idle machine took more
            than the working one.
        InvalidSpec: `inferences` is not positive.
    """
    if inferences < 1:
        raise InvalidSpec(f"work has a positive number of inferences, not {inferences}")
    if reason := counter.available():
        raise PlaceError(counter.name, reason)
    shortest_s = max(at_least_s, UPDATES * counter.resolution_s)
    calls, busy = _counted(lambda: _repeated(work, shortest_s), counter)
    if busy.joules <= 0:
        raise PlaceError(counter.name, f"the counter did not move in {busy.seconds:.1f} s")
    idle_joules = _idle_joules(counter, busy) if idle else None
    total = calls * inferences
    above = None if idle_joules is None else (busy.joules - idle_joules) / total
    return MeasuredEnergy(
        joules=busy.joules / total,
        inferences=total,
        seconds=busy.seconds,
        total_joules=busy.joules,
        idle_joules=idle_joules,
        above_idle_joules=above,
        counter=counter.name,
        domain=busy.domain,
    )


def _repeated(work: Callable[[], object], shortest_s: float) -> int:
    started_s, calls = time.monotonic(), 0
    while not calls or time.monotonic() - started_s < shortest_s:
        work()
        calls += 1
    return calls


def _idle_joules(counter: Counter, busy: Reading) -> float:
    _, idle = _counted(lambda: time.sleep(busy.seconds), counter)
    joules = idle.joules / idle.seconds * busy.seconds
    if joules > busy.joules:
        raise PlaceError(
            counter.name,
            f"doing nothing took {joules:.3g} J, more than the work's {busy.joules:.3g} J: "
            "something else keeps the machine busy",
        )
    return joules


def _counted(span: Callable[[], T], counter: Counter) -> tuple[T, Reading]:
    running = counter.start()
    started_s = time.monotonic()
    try:
        result = span()
    except BaseException:
        with suppress(PlaceError):
            running.stop()
        raise
    seconds = time.monotonic() - started_s
    reading = running.stop()
    if abs(reading.seconds - seconds) > max(_DELAY_S, _SPANS_DIFFER * seconds):
        raise PlaceError(
            counter.name, f"it counted for {reading.seconds:.2f} s, the span took {seconds:.2f} s"
        )
    return result, reading

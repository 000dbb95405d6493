"""Counters of real energy; one file a counter, found by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from phoneward.registry import Entry, Registry


@dataclass(frozen=True)
class Reading:
    """What a counter counted from its start to its stop.

    Attributes:
        joules: all that it saw, the idle machine's share included.
        seconds: the span that they belong to.
        domain: what it sees, e.g. `package-0`.
    """

    joules: float
    seconds: float
    domain: str


class Running(Protocol):
    """A counter that has been started."""

    def stop(self) -> Reading:
        """Stop counting, whatever comes; raises `PlaceError` if what was counted says nothing."""
        ...


class Counter(Protocol):
    """Counts the energy of one machine.

    `resolution_s` is how long the counter may stand still between two updates: a span of `n` times
    this is uncertain by up to one update at each end, `2 / n` of itself.
    """

    @property
    def name(self) -> str:
        """Its name in the registry."""
        ...

    @property
    def resolution_s(self) -> float:
        """Seconds between two updates, at most."""
        ...

    def available(self) -> str | None:
        """Return why it cannot count now, and what to do about it; None if it can."""
        ...

    def start(self) -> Running:
        """Begin to count; raises `PlaceError` if that fails."""
        ...


COUNTERS: Registry[Callable[[], Counter]] = Registry(
    "energy counter",
    {
        "rapl": Entry("phoneward.profiles.energy.counters.rapl:Rapl"),
        "powermetrics": Entry("phoneward.profiles.energy.counters.powermetrics:PowerMetrics"),
        "battery": Entry("phoneward.profiles.energy.counters.battery:Battery"),
    },
)


def why_unavailable() -> dict[str, str | None]:
    """Ask every counter for this machine, and the only phone, why it cannot count; None: it can."""
    return {name: COUNTERS.get(name)().available() for name in COUNTERS}

"""Energy of the systems, predicted from their times; and why none is counted, where none is."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from phoneward.apps.bench.cbnet.records import EnergyRow
from phoneward.profiles.energy.counters import why_unavailable
from phoneward.profiles.energy.model import named_power, predict

if TYPE_CHECKING:
    from phoneward.apps.bench.cbnet.records import Case, Round, System

POWER, EXPONENT = "gci-cpu", 0.75
"""The paper's power of a cloud machine with two cores, which this one resembles most."""
_OF_THIS_MACHINE = ("rapl", "powermetrics")  # a battery is a phone's, and nothing runs there


def why_not() -> dict[str, str | None]:
    """Say for each counter of this machine why it cannot count; None: it can."""
    found = why_unavailable()
    return {name: found[name] for name in _OF_THIS_MACHINE}


def energy_rows(
    cases: Sequence[Case],
    rounds: Sequence[Round],
    placeless: Callable[[System], System],
    busy: float,
) -> tuple[EnergyRow, ...]:
    """Predict the energy of an image, one at a time, from the median of the turns' means.

    `busy` is the share of the machine's cores that work.
    """
    power = named_power(POWER, utilisation=busy, exponent=EXPONENT)
    rows = []
    for engine in dict.fromkeys(one.engine for one in rounds):
        for index, case in enumerate(cases):
            if case.batch != 1:
                continue
            found = [
                ns
                for one in rounds
                if one.engine == engine
                for ns in one.times.times[index].mean_ns
            ]
            seconds = statistics.median(found) / 1e9
            system = placeless(case.system)
            rows.append(EnergyRow(system=system, engine=engine, energy=predict(seconds, power)))
    return tuple(rows)

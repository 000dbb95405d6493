"""`rapl`: the energy counters of Intel's and AMD's processors, as Linux shows them.

After Documentation/power/powercap/powercap.rst of Linux. Processor packages are summed. Their
parts (core, uncore, and dram) would be counted twice and are left out, as is the whole platform
(psys), which contains the packages, and a second way to the same counters (intel-rapl-mmio).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from phoneward.errors import PlaceError
from phoneward.profiles.energy.counters import Reading
from phoneward.profiles.energy.counters.samples import Sampler

_ROOT = Path("/sys/class/powercap")
# AMD's processors are listed under Intel's name too
_ZONE = re.compile(r"intel-rapl:\d+")
# a server's counter wraps around after some minutes: looked at every few seconds, it cannot do so
# unseen
_EVERY_S = 5.0


@dataclass(frozen=True)
class _Domain:
    """One package: its name, where its counter is, and where it wraps around, in microjoules."""

    name: str
    counter: Path
    range_uj: int


@dataclass(frozen=True)
class Rapl:
    """The processor packages below a powercap folder."""

    root: Path = _ROOT
    name: str = field(default="rapl", init=False)
    resolution_s: float = field(default=0.001, init=False)

    def available(self) -> str | None:
        """Return why the counters cannot be read; None if they can."""
        try:
            for domain in _domains(self.root):
                _number(domain.counter)
        except PlaceError as error:
            return error.reason
        return None

    def start(self) -> _RunningRapl:
        """Read all packages.

        Raises:
            PlaceError: there are none, or they may not be read.
        """
        domains = _domains(self.root)

        def read() -> dict[str, int]:
            return {domain.name: _number(domain.counter) for domain in domains}

        return _RunningRapl(Sampler(read, _EVERY_S), {d.name: d.range_uj for d in domains})


@dataclass(frozen=True)
class _RunningRapl:
    sampler: Sampler[dict[str, int]]
    ranges_uj: Mapping[str, int]

    def stop(self) -> Reading:
        """Read all packages again and sum what they have used."""
        samples = self.sampler.stop()
        total_uj = sum(
            used_uj(before.value[name], after.value[name], range_uj)
            for before, after in pairwise(samples)
            for name, range_uj in self.ranges_uj.items()
        )
        seconds = samples[-1].moment_s - samples[0].moment_s
        return Reading(total_uj / 1e6, seconds, " + ".join(self.ranges_uj))


def used_uj(before_uj: int, after_uj: int, range_uj: int) -> int:
    """Return what was used between two readings of a counter that wraps around at most once.

    Raises:
        PlaceError: a reading lies outside 0 to `range_uj`.
    """
    if not (0 <= before_uj <= range_uj and 0 <= after_uj <= range_uj):
        raise PlaceError(
            "rapl", f"a counter of 0 to {range_uj} went from {before_uj} to {after_uj}"
        )
    return after_uj - before_uj + (range_uj if after_uj < before_uj else 0)


def _domains(root: Path) -> list[_Domain]:
    try:
        zones = sorted(path for path in root.iterdir() if _ZONE.fullmatch(path.name))
    except OSError as error:
        told = "virtual machines, containers and Arm processors have no such counter"
        raise PlaceError("rapl", f"{root}: {error.strerror}; {told}") from error
    packages = [zone for zone in zones if _text(zone / "name").startswith("package")]
    if not packages:
        raise PlaceError(
            "rapl", f"{root}: lists no processor package; try: modprobe intel_rapl_msr"
        )
    found = [
        _Domain(_text(zone / "name"), zone / "energy_uj", _number(zone / "max_energy_range_uj"))
        for zone in packages
    ]
    if len({domain.name for domain in found}) < len(found):
        raise PlaceError("rapl", f"{root}: two packages have the same name")
    return found


def _number(path: Path) -> int:
    text = _text(path)
    if not (text.isascii() and text.isdigit()):
        raise PlaceError("rapl", f"{path}: not a number: {text[:40]!r}")
    return int(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except PermissionError as error:
        every = path.parent.parent / "intel-rapl:*" / path.name
        told = f"run as root (sudo), or allow it until the next start: sudo chmod a+r {every}"
        raise PlaceError("rapl", f"{path} is for root alone; {told}") from error
    except OSError as error:
        raise PlaceError("rapl", f"{path}: {error.strerror}") from error

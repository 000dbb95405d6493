"""`battery`: what an Android phone takes from its battery, asked over adb.

After Documentation/ABI/testing/sysfs-class-power of Linux and Android's `dumpsys battery`. The
files are the driver's: makers differ in which there are, in the sign of the current, and some in
its unit, so that what cannot be told is asked for and what contradicts itself is an error.

A charging phone says nothing of what it takes: adb has to come over Wi-Fi (`adb tcpip`).
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from phoneward.errors import PlaceError
from phoneward.profiles.energy.counters import Reading
from phoneward.profiles.energy.counters.samples import (
    Sample,
    Sampler,
    integrate,
    windows_between,
)
from phoneward.profiles.measure.android.client import Phone, find_phone

Source = Literal["current", "charge", "energy"]
CurrentUnit = Literal["uA", "mA"]

_DOMAIN = "the whole phone, from its battery"
_FILES: dict[Source, tuple[str, ...]] = {
    "current": ("current_now", "voltage_now"),
    "charge": ("charge_counter", "voltage_now"),
    "energy": ("energy_now",),
}
# a fuel gauge gives a current about once a second, and moves its charge in coarse steps
_RESOLUTION_S: dict[Source, float] = {"current": 1.0, "charge": 10.0, "energy": 10.0}
_FEWEST_STEPS = 20
# of a cell that works, and of two in series
_VOLTS = (2.5, 10.0)
# of a phone at work
_AMPERES = (0.01, 20.0)
_MARK = "phoneward-battery"
_POWERED = re.compile(r"^\s*(\w+) powered: true\s*$", re.M)


@dataclass(frozen=True)
class Battery:
    """The battery of a phone that adb talks to.

    Attributes:
        serial: of the phone; empty: the only one.
        source: `current` integrates current times voltage; `charge` takes the difference of the
            charge, times the mean voltage; `energy` the difference of the energy.
        current_unit: of `current_now`: microamperes after Linux, milliamperes with some makers.
        supply: the folder on the phone.
    """

    serial: str = ""
    source: Source = "current"
    current_unit: CurrentUnit = "uA"
    supply: str = "/sys/class/power_supply/battery"
    name: str = field(default="battery", init=False)

    @property
    def resolution_s(self) -> float:
        """Seconds between two updates of the gauge, as far as such gauges are known."""
        return _RESOLUTION_S[self.source]

    def available(self) -> str | None:
        """Return why the battery says nothing now; None if it does."""
        try:
            phone = find_phone(self.serial)
            check_discharging(phone.place, phone.shell("dumpsys battery"))
            self._read(phone)
        except PlaceError as error:
            return error.reason
        return None

    def start(self) -> _RunningBattery:
        """Begin to ask the phone.

        Raises:
            PlaceError: there is no phone, it is charged or powered, or hides the files.
        """
        phone = find_phone(self.serial)
        check_discharging(phone.place, phone.shell("dumpsys battery"))
        sampler = Sampler(lambda: self._read(phone), self.resolution_s)
        return _RunningBattery(self, phone, sampler, time.monotonic())

    def _read(self, phone: Phone) -> dict[str, int]:
        names = ("status", *_FILES[self.source])
        asked = "; ".join(
            f'echo "{_MARK} {name} $(cat {shlex.quote(f"{self.supply}/{name}")} 2>&1)"'
            for name in names
        )
        return parse_supply(phone.place, phone.shell(asked), names)


@dataclass(frozen=True)
class _RunningBattery:
    battery: Battery
    phone: Phone
    sampler: Sampler[dict[str, int]]
    start_s: float

    def stop(self) -> Reading:
        """Ask once more; return what was taken until now."""
        span_s = time.monotonic() - self.start_s
        samples = self.sampler.stop()
        place = self.phone.place
        check_discharging(place, self.phone.shell("dumpsys battery"))
        if self.battery.source == "current":
            joules = joules_by_current(place, samples, self.battery.current_unit)
        elif self.battery.source == "charge":
            joules = joules_by_charge(place, samples)
        else:
            joules = joules_by_energy(place, samples)
        # asking takes a while: the samples go on a little longer than the span
        asked_s = samples[-1].moment_s - samples[0].moment_s
        return Reading(joules / asked_s * span_s, span_s, _DOMAIN)


def check_discharging(place: str, dumped: str) -> None:
    """Raise `PlaceError` unless the output of `dumpsys battery` is of a phone without power."""
    if "UPDATES STOPPED" in dumped:
        # what `dumpsys battery unplug` does: the phone only says that nothing charges it
        raise PlaceError(
            place, "its battery state is made up; run: adb shell dumpsys battery reset"
        )
    if powered := _POWERED.findall(dumped):
        raise PlaceError(
            place,
            f"it is powered ({', '.join(powered)}), so that its battery tells nothing; unplug it "
            "and use adb over Wi-Fi",
        )
    if not re.search(r"^\s*\w+ powered: false\s*$", dumped, re.M):
        raise PlaceError(place, "dumpsys battery does not say whether it is powered")


def parse_supply(place: str, text: str, names: Sequence[str]) -> dict[str, int]:
    """Read the files that were asked for, in their own units, the status left out.

    Raises:
        PlaceError: one is not there or not a number, or the battery is not discharging.
    """
    found = dict(re.findall(rf"^{_MARK} (\w+) ?(.*)$", text, re.M))
    values = {}
    for name in names:
        value = found.get(name, "").strip()
        if name == "status":
            if value != "Discharging":
                raise PlaceError(place, f"the status of its battery is '{value}', not Discharging")
        elif re.fullmatch(r"-?[0-9]{1,18}", value):
            values[name] = int(value)
        else:
            told = value or "nothing"
            raise PlaceError(place, f"its battery's {name} cannot be read: {told}")
    return values


def joules_by_current(
    place: str, samples: Sequence[Sample[dict[str, int]]], unit: CurrentUnit
) -> float:
    """Integrate current times voltage over the span of the samples.

    The sign of the current does not matter, as makers disagree about it; it may not change.

    Raises:
        PlaceError: the sign changes, or a voltage or the mean current is none of a phone.
    """
    currents = [sample.value["current_now"] for sample in samples]
    if min(currents) < 0 < max(currents):
        raise PlaceError(place, "the sign of its battery's current changes: is it charged?")
    per_ampere = 1e6 if unit == "uA" else 1e3
    mean_a = sum(map(abs, currents)) / len(currents) / per_ampere
    if not _AMPERES[0] <= mean_a <= _AMPERES[1]:
        other = "mA" if unit == "uA" else "uA"
        raise PlaceError(
            place,
            f"its battery's mean current would be {mean_a:.3g} A; if this maker counts in "
            f"{other}, say current_unit='{other}'",
        )
    powers = [
        Sample(s.moment_s, abs(s.value["current_now"]) / per_ampere * _volts(place, s))
        for s in samples
    ]
    joules, _ = integrate(windows_between(powers), samples[0].moment_s, samples[-1].moment_s)
    return joules


def joules_by_charge(place: str, samples: Sequence[Sample[dict[str, int]]]) -> float:
    """Return the charge that was taken (in microampere-hours) times the mean voltage.

    Raises:
        PlaceError: the charge grew or moved in few steps, or a voltage is none of a phone.
    """
    used_uah = _used(place, samples, "charge_counter")
    volts = sum(_volts(place, sample) for sample in samples) / len(samples)
    return used_uah * 1e-6 * 3600 * volts


def joules_by_energy(place: str, samples: Sequence[Sample[dict[str, int]]]) -> float:
    """Return the energy that was taken (counted in microwatt-hours).

    Raises:
        PlaceError: the energy grew, or moved in few steps.
    """
    return _used(place, samples, "energy_now") * 1e-6 * 3600


def _used(place: str, samples: Sequence[Sample[dict[str, int]]], name: str) -> int:
    values = [sample.value[name] for sample in samples]
    if any(after > before for before, after in pairwise(values)):
        raise PlaceError(place, f"its battery's {name} grew: is it charged?")
    steps = len(set(values)) - 1
    if steps < _FEWEST_STEPS:
        raise PlaceError(
            place,
            f"its battery's {name} moved in {steps} steps, fewer than {_FEWEST_STEPS}: let the "
            "work take longer",
        )
    return values[0] - values[-1]


def _volts(place: str, sample: Sample[dict[str, int]]) -> float:
    volts = sample.value["voltage_now"] / 1e6
    if not _VOLTS[0] <= volts <= _VOLTS[1]:
        raise PlaceError(place, f"its battery's voltage_now would be {volts:.3g} V")
    return volts

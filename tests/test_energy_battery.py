"""The battery counter, against written transcripts; this machine's shell stands for a phone's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phoneward.errors import PlaceError
from phoneward.profiles.energy.counters import battery as module
from phoneward.profiles.energy.counters.battery import (
    Battery,
    check_discharging,
    joules_by_charge,
    joules_by_current,
    joules_by_energy,
    parse_supply,
)
from phoneward.profiles.energy.counters.samples import Sample
from phoneward.profiles.energy.measure import measure
from tests.fake_phone import FakePhone, make_phone

PLACE = "adb:38131FDJH00"
# as Android's BatteryService prints it; the values are made up
DUMPSYS = """\
Current Battery Service state:
  AC powered: false
  USB powered: false
  Wireless powered: false
  Dock powered: false
  Max charging current: 0
  Max charging voltage: 0
  Charge counter: 3021000
  status: 3
  health: 2
  present: true
  level: 71
  scale: 100
  voltage: 3972
  temperature: 278
  technology: Li-ion
"""


def sampled(*values: dict[str, int], every_s: float = 1.0) -> list[Sample[dict[str, int]]]:
    return [Sample(index * every_s, value) for index, value in enumerate(values)]


def drawing(*currents: int) -> list[Sample[dict[str, int]]]:
    return sampled(*({"current_now": value, "voltage_now": 4_000_000} for value in currents))


@pytest.mark.parametrize(
    ("dumped", "said"),
    [
        (DUMPSYS.replace("USB powered: false", "USB powered: true"), r"powered \(USB\).*Wi-Fi"),
        (DUMPSYS.replace("powered: false", "powered: true"), r"\(AC, USB, Wireless, Dock\)"),
        (
            DUMPSYS.replace("state:\n", "state:\n  (UPDATES STOPPED -- use 'reset' to restart)\n"),
            "made up; run: adb shell dumpsys battery reset",
        ),
        ("Can't find service: battery\n", "does not say whether it is powered"),
        ("", "does not say whether it is powered"),
    ],
)
def test_only_a_phone_on_its_battery_counts(dumped: str, said: str) -> None:
    check_discharging(PLACE, DUMPSYS)
    with pytest.raises(PlaceError, match=said):
        check_discharging(PLACE, dumped)


NAMES = ("status", "current_now", "voltage_now")
SUPPLY = """\
phoneward-battery status Discharging
phoneward-battery current_now -412000
phoneward-battery voltage_now 3971000
"""


def test_the_files_are_read() -> None:
    assert parse_supply(PLACE, SUPPLY, NAMES) == {"current_now": -412000, "voltage_now": 3971000}


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ("Discharging", "Charging", "'Charging', not Discharging"),
        ("Discharging", "Not charging", "'Not charging', not Discharging"),
        ("Discharging", "", "'', not Discharging"),
        ("-412000", "cat: current_now: Permission denied", "current_now cannot be read: .*denied"),
        ("-412000", "", "current_now cannot be read: nothing"),
        ("-412000", "0.412", r"current_now cannot be read: 0\.412"),
        ("phoneward-battery voltage_now 3971000\n", "", "voltage_now cannot be read: nothing"),
    ],
)
def test_a_file_that_tells_nothing_is_an_error(line: str, instead: str, said: str) -> None:
    with pytest.raises(PlaceError, match=said):
        parse_supply(PLACE, SUPPLY.replace(line, instead), NAMES)


@given(st.text(max_size=60))
def test_what_is_no_answer_is_refused(text: str) -> None:
    with pytest.raises(PlaceError):
        parse_supply(PLACE, text, NAMES)


@given(st.integers(-10_000_000, 10_000_000), st.integers(0, 12_000_000))
def test_every_answer_is_read_back(current: int, voltage: int) -> None:
    text = SUPPLY.replace("-412000", str(current)).replace("3971000", str(voltage))
    assert parse_supply(PLACE, text, NAMES) == {"current_now": current, "voltage_now": voltage}


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_the_current_does_not_matter(sign: int) -> None:
    samples = drawing(sign * 500_000, sign * 1_000_000, sign * 500_000)
    # 2 W to 4 W and back in two seconds
    assert joules_by_current(PLACE, samples, "uA") == pytest.approx(6.0)


def test_the_unit_of_the_current_is_asked_for_and_not_guessed() -> None:
    assert joules_by_current(PLACE, drawing(-500, -500, -500), "mA") == pytest.approx(4.0)
    with pytest.raises(PlaceError, match=r"0\.0005 A; .* say current_unit='mA'"):
        joules_by_current(PLACE, drawing(-500, -500, -500), "uA")
    with pytest.raises(PlaceError, match="500 A; .* say current_unit='uA'"):
        joules_by_current(PLACE, drawing(-500_000, -500_000), "mA")


@given(st.floats(0.5, 2000), st.integers(20_000, 5_000_000), st.integers(2_500_000, 10_000_000))
def test_a_constant_current_gives_power_times_time(
    seconds: float, current: int, voltage: int
) -> None:
    value = {"current_now": -current, "voltage_now": voltage}
    joules = joules_by_current(PLACE, sampled(value, value, every_s=seconds), "uA")
    assert joules == pytest.approx(current * 1e-6 * voltage * 1e-6 * seconds)


def test_a_current_that_turns_round_is_an_error() -> None:
    with pytest.raises(PlaceError, match="sign of its battery's current changes"):
        joules_by_current(PLACE, drawing(-500_000, 500_000, -500_000), "uA")


@pytest.mark.parametrize("voltage", [3_900, 0, -3_900_000, 39_000_000])
def test_a_voltage_of_no_phone_is_an_error(voltage: int) -> None:
    samples = sampled(*[{"current_now": -500_000, "voltage_now": voltage}] * 3)
    with pytest.raises(PlaceError, match="voltage_now would be"):
        joules_by_current(PLACE, samples, "uA")


def test_a_charge_is_microampere_hours_at_the_mean_voltage() -> None:
    samples = sampled(
        *({"charge_counter": 3_000_000 - 1000 * i, "voltage_now": 4_000_000} for i in range(31))
    )
    # 30 mAh at 4 V are 120 mWh
    assert joules_by_charge(PLACE, samples) == pytest.approx(0.120 * 3600)


def test_an_energy_is_microwatt_hours() -> None:
    samples = sampled(*({"energy_now": 12_000_000 - 5000 * i} for i in range(25)))
    assert joules_by_energy(PLACE, samples) == pytest.approx(0.120 * 3600)


def test_a_gauge_in_few_steps_or_that_grows_is_an_error() -> None:
    few = sampled(*({"energy_now": 12_000_000 - 5000 * (i // 10)} for i in range(100)))
    with pytest.raises(PlaceError, match="moved in 9 steps, fewer than 20"):
        joules_by_energy(PLACE, few)
    grows = sampled(*({"energy_now": 12_000_000 + 5 * i} for i in range(100)))
    with pytest.raises(PlaceError, match="energy_now grew"):
        joules_by_energy(PLACE, grows)


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePhone:
    phone = make_phone(tmp_path / "phone")
    phone.plug_in(monkeypatch)
    (phone.home / "dumped").write_text(DUMPSYS)
    phone.program("dumpsys", '[ "$1" = battery ] && cat $PHONE/dumped')
    supply = phone.home / "supply"
    supply.mkdir()
    for name, value in (
        ("status", "Discharging"),
        ("current_now", "-750000"),
        ("voltage_now", "4000000"),
        ("energy_now", "12000000"),
    ):
        (supply / name).write_text(f"{value}\n")
    return phone


@pytest.fixture
def battery(phone: FakePhone) -> Callable[..., Battery]:
    def make(**changes: object) -> Battery:
        return Battery(supply=str(phone.home / "supply"), **changes)  # type: ignore[arg-type]

    return make


def test_a_phone_is_measured(
    battery: Callable[..., Battery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module._RESOLUTION_S, "current", 0.01)
    energy = measure(lambda: None, 1, battery(), at_least_s=0.0)
    assert energy.total_joules == pytest.approx(3.0 * energy.seconds)
    assert energy.seconds >= 1.0
    assert (energy.counter, energy.domain) == ("battery", "the whole phone, from its battery")


def test_the_gauge_is_given_time() -> None:
    assert Battery().resolution_s == 1.0
    assert Battery(source="charge").resolution_s == Battery(source="energy").resolution_s == 10.0


def test_a_phone_that_is_plugged_in_is_not_measured(
    battery: Callable[..., Battery], phone: FakePhone
) -> None:
    assert battery().available() is None
    (phone.home / "dumped").write_text(DUMPSYS.replace("USB powered: false", "USB powered: true"))
    assert "powered (USB)" in (battery().available() or "")
    with pytest.raises(PlaceError, match="adb:38131FDJH00: it is powered"):
        battery().start()


def test_a_phone_that_is_plugged_in_meanwhile_is_not_measured(
    battery: Callable[..., Battery], phone: FakePhone
) -> None:
    running = battery().start()
    (phone.home / "supply" / "status").write_text("Charging\n")
    with pytest.raises(PlaceError, match="'Charging', not Discharging"):
        running.stop()


def test_a_phone_that_hides_its_battery_says_so(
    battery: Callable[..., Battery], phone: FakePhone
) -> None:
    reason = battery(source="charge").available()
    assert reason is not None
    assert "charge_counter cannot be read" in reason
    assert "No such file" in reason


def test_a_phone_that_goes_away_is_told(battery: Callable[..., Battery], phone: FakePhone) -> None:
    running = battery().start()
    (phone.home / "unplugged").touch()
    with pytest.raises(PlaceError, match="went away"):
        running.stop()


def test_a_battery_that_hardly_moves_is_not_measured(battery: Callable[..., Battery]) -> None:
    running = battery(source="energy").start()
    with pytest.raises(PlaceError, match="moved in 0 steps"):
        running.stop()

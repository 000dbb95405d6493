"""Energy: what its two kinds hold, the paper's model, and counting repeated work."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from phoneward.errors import InvalidSpec, PlaceError, UnknownName
from phoneward.profiles.energy.counters import Reading
from phoneward.profiles.energy.measure import measure
from phoneward.profiles.energy.model import Power, named_power, power_names, predict
from phoneward.profiles.energy.schema import Energy, MeasuredEnergy, PredictedEnergy

ENERGY: TypeAdapter[PredictedEnergy | MeasuredEnergy] = TypeAdapter(Energy)
PREDICTED = {
    "provenance": "predicted",
    "joules": 0.158,
    "power_watts": 79.0,
    "seconds": 0.002,
    "basis": "a test",
}
MEASURED = {
    "provenance": "measured",
    "joules": 0.5,
    "inferences": 20,
    "seconds": 2.0,
    "total_joules": 10.0,
    "idle_joules": 4.0,
    "above_idle_joules": 0.3,
    "counter": "rapl",
    "domain": "package-0",
}


def test_the_two_kinds_are_told_apart_and_survive_a_file() -> None:
    for given_values, kind in ((PREDICTED, PredictedEnergy), (MEASURED, MeasuredEnergy)):
        energy = ENERGY.validate_python(given_values)
        assert type(energy) is kind
        assert ENERGY.validate_json(ENERGY.dump_json(energy)) == energy


def test_an_energy_without_provenance_is_refused() -> None:
    for values in (PREDICTED, MEASURED):
        with pytest.raises(ValidationError, match="provenance"):
            ENERGY.validate_python({k: v for k, v in values.items() if k != "provenance"})


@pytest.mark.parametrize(
    "change",
    [
        {"joules": 0.16},
        {"joules": -0.158, "power_watts": -79.0},
        {"joules": math.nan},
        {"joules": math.inf, "power_watts": math.inf},
        {"seconds": 0.0, "joules": 0.0},
        {"basis": ""},
        {"provenance": "measured"},
        {"counter": "rapl"},
    ],
)
def test_a_prediction_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ENERGY.validate_python({**PREDICTED, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"joules": 0.51},
        {"total_joules": math.nan},
        {"total_joules": math.inf},
        {"inferences": 0},
        {"seconds": -2.0},
        {"idle_joules": None},
        {"above_idle_joules": None},
        {"above_idle_joules": 0.31},
        {"idle_joules": 16.0, "above_idle_joules": -0.3},
        {"domain": ""},
        {"provenance": "predicted"},
        {"power_watts": 5.0},
    ],
)
def test_a_measurement_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ENERGY.validate_python({**MEASURED, **change})


def test_a_measurement_needs_no_idle_span() -> None:
    energy = ENERGY.validate_python({**MEASURED, "idle_joules": None, "above_idle_joules": None})
    assert isinstance(energy, MeasuredEnergy)
    assert energy.idle_joules is None


def test_the_cpu_figures_of_the_notebook_come_out() -> None:
    """Cell 16 of the authors' notebook, MNIST and KMNIST, normalised to LeNet."""
    full = named_power("gci-cpu", utilisation=1, exponent=0.75)
    encoding = named_power("gci-cpu", utilisation=0.85, exponent=0.75)
    assert full.watts == pytest.approx(20.0)
    for dnn_s, encoder_s, lenet_s, published in (
        (1.9457, 0.72, 13.22, 0.19678048506174647),
        (1.9546, 0.65, 13.5, 0.1886359782032497),
    ):
        ours = predict(dnn_s, full).joules + predict(encoder_s, encoding).joules
        assert ours / predict(lenet_s, full).joules == pytest.approx(published, rel=1e-12)


def test_the_gpu_figures_of_the_notebook_come_out() -> None:
    """Cell 15, MNIST and KMNIST; there the exponent is 1."""
    gpu, encoding = named_power("k80"), named_power("gci-cpu", utilisation=0.85, exponent=1)
    for dnn_s, encoder_s, lenet_s, published in (
        (0.353, 0.7, 2.6575, 0.19173662629847057),
        (0.352, 0.65, 2.65, 0.18768250935435077),
    ):
        ours = predict(dnn_s, gpu).joules + predict(encoder_s, encoding).joules
        assert ours / predict(lenet_s, gpu).joules == pytest.approx(published, rel=1e-12)


def test_a_prediction_says_whose_power_it_assumes() -> None:
    energy = predict(0.00188, named_power("raspberry-pi-4"))
    assert energy.provenance == "predicted"
    assert energy.joules == pytest.approx(3.0 * 0.00188)
    assert "3 W for a Raspberry Pi 4" in energy.basis
    assert "600 mA" in energy.basis
    busy = predict(1.0, named_power("gci-cpu", utilisation=0.85, exponent=0.75))
    assert "busy to 85 % (exponent 0.75)" in busy.basis
    own = Power(watts=4.2, of="my board", source="my wall meter")
    assert predict(0.5, own).basis == "4.2 W for my board; my wall meter"


def test_every_power_of_the_file_can_be_had() -> None:
    assert power_names() == ("k80", "gci-cpu", "raspberry-pi-4")
    for name in power_names():
        arguments = {"utilisation": 0.5, "exponent": 1.0} if name == "gci-cpu" else {}
        assert predict(0.01, named_power(name, **arguments)).joules > 0


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("gci-cpu", {}, "needs a utilisation and an exponent"),
        ("gci-cpu", {"utilisation": 0.5}, "needs a utilisation and an exponent"),
        ("gci-cpu", {"utilisation": 85.0, "exponent": 1.0}, "from 0 to 1"),
        ("gci-cpu", {"utilisation": math.nan, "exponent": 1.0}, "from 0 to 1"),
        ("gci-cpu", {"utilisation": 0.5, "exponent": 0.0}, "above 0"),
        ("k80", {"utilisation": 0.5}, "is constant"),
    ],
)
def test_a_power_takes_what_it_needs_and_nothing_else(
    name: str, arguments: dict[str, float], said: str
) -> None:
    with pytest.raises(InvalidSpec, match=said):
        named_power(name, **arguments)


def test_an_unknown_power_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="k80, gci-cpu, raspberry-pi-4"):
        named_power("pixel-8")


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, 1e308])
def test_a_time_that_is_none_predicts_nothing(seconds: float) -> None:
    with pytest.raises(InvalidSpec, match="positive number of seconds"):
        predict(seconds, named_power("k80"))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 3))
def test_a_busier_processor_takes_more(one: float, other: float, exponent: float) -> None:
    low, high = sorted((one, other))
    powers = [named_power("gci-cpu", utilisation=u, exponent=exponent).watts for u in (low, high)]
    assert 40 / 9 <= powers[0] <= powers[1] <= 20


@dataclass
class FakeCounter:
    """Counts `watts` times time, a list of them for span after span, unless told otherwise."""

    watts: list[float]
    reason: str | None = None
    stretch: float = 1.0
    name: str = "fake"
    resolution_s: float = 0.0005
    stopped: int = field(default=0, init=False)

    def available(self) -> str | None:
        return self.reason

    def start(self) -> RunningFake:
        return RunningFake(self, time.monotonic())


@dataclass
class RunningFake:
    counter: FakeCounter
    started_s: float

    def stop(self) -> Reading:
        seconds = (time.monotonic() - self.started_s) * self.counter.stretch
        watts = self.counter.watts[self.counter.stopped]
        self.counter.stopped += 1
        return Reading(watts * seconds, seconds, "a fake machine")


def test_work_is_repeated_until_the_counter_can_tell() -> None:
    calls = []
    counter = FakeCounter([8.0], resolution_s=0.002)
    energy = measure(lambda: (calls.append(1), time.sleep(0.01)), 5, counter, at_least_s=0.0)
    # 100 updates of 2 ms, in calls of 10 ms
    assert energy.seconds >= 0.2
    assert 2 <= len(calls) <= 20
    assert energy.inferences == 5 * len(calls)
    assert energy.total_joules == pytest.approx(8.0 * energy.seconds)
    assert energy.joules == pytest.approx(8.0 * energy.seconds / energy.inferences)
    assert (energy.counter, energy.domain) == ("fake", "a fake machine")
    assert energy.idle_joules is None


def test_work_that_takes_long_is_done_once() -> None:
    calls = []
    measure(lambda: (calls.append(1), time.sleep(0.1)), 1, FakeCounter([1.0]), at_least_s=0.05)
    assert len(calls) == 1


def test_the_idle_machine_stands_beside_and_is_not_subtracted() -> None:
    energy = measure(
        lambda: time.sleep(0.02), 4, FakeCounter([10.0, 4.0]), at_least_s=0.1, idle=True
    )
    assert energy.total_joules == pytest.approx(10.0 * energy.seconds)
    assert energy.idle_joules == pytest.approx(4.0 * energy.seconds)
    assert energy.above_idle_joules == pytest.approx(6.0 * energy.seconds / energy.inferences)
    assert energy.joules == pytest.approx(10.0 * energy.seconds / energy.inferences)


@pytest.mark.parametrize(
    ("counter", "said"),
    [
        (FakeCounter([1.0], reason="no such thing here"), "fake: no such thing here"),
        (FakeCounter([0.0]), "did not move"),
        (FakeCounter([4.0, 5.0]), "doing nothing took"),
        (FakeCounter([1.0], stretch=20.0), "it counted for"),
    ],
)
def test_what_says_nothing_is_no_measurement(counter: FakeCounter, said: str) -> None:
    with pytest.raises(PlaceError, match=said):
        measure(lambda: time.sleep(0.01), 1, counter, at_least_s=0.0, idle=True)


def test_work_that_fails_stops_the_counter() -> None:
    counter = FakeCounter([1.0])
    with pytest.raises(ZeroDivisionError):
        measure(lambda: 1 // 0, 1, counter)
    assert counter.stopped == 1


def test_work_without_inferences_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="positive number of inferences"):
        measure(lambda: None, 0, FakeCounter([1.0]))

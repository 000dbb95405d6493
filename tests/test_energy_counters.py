"""What all energy counters share, and RAPL against made-up folders."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phoneward.errors import PlaceError
from phoneward.profiles.energy.counters import COUNTERS, why_unavailable
from phoneward.profiles.energy.counters.rapl import Rapl, used_uj
from phoneward.profiles.energy.counters.samples import (
    Sample,
    Sampler,
    Window,
    integrate,
    windows_between,
)
from phoneward.profiles.energy.measure import measure

RANGE_UJ = 262_143_328_850


def zone(root: Path, folder: str, name: str, energy_uj: int = 1000) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    return path / "energy_uj"


def add(counter: Path, used: int) -> None:
    """Have a counter count, and wrap around as Linux says that it does."""
    total = int(counter.read_text()) + used
    new = counter.with_suffix(".new")
    new.write_text(f"{total - RANGE_UJ if total > RANGE_UJ else total}\n")
    # the counter reads it meanwhile
    new.replace(counter)


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two sockets as Linux lists them, flat, with all that must not be summed."""
    root = tmp_path / "powercap"
    zone(root, "intel-rapl:0", "package-0")
    zone(root, "intel-rapl:1", "package-1", RANGE_UJ - 500_000)
    for folder, name in (
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:0:1", "uncore"),
        ("intel-rapl:0:2", "dram"),
        ("intel-rapl:2", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
    ):
        zone(root, folder, name)
    (root / "intel-rapl").mkdir()
    return root


@pytest.mark.parametrize("name", COUNTERS)
def test_a_counter_is_what_its_name_says_and_explains_why_it_cannot_count(name: str) -> None:
    counter = COUNTERS.get(name)()
    assert counter.name == name
    assert counter.resolution_s > 0
    reason = counter.available()
    assert reason is None or (reason and "\n" not in reason)
    if reason is not None:
        with pytest.raises(PlaceError, match="."):
            measure(lambda: None, 1, counter)


def test_why_unavailable_asks_all() -> None:
    assert list(why_unavailable()) == list(COUNTERS)


def test_rapl_sums_packages_and_nothing_else(powercap: Path) -> None:
    running = Rapl(powercap).start()
    add(powercap / "intel-rapl:0/energy_uj", 2_000_000)
    for other in ("intel-rapl:0:0", "intel-rapl:0:2", "intel-rapl:2", "intel-rapl-mmio:0"):
        add(powercap / other / "energy_uj", 500_000)
    reading = running.stop()
    assert reading.joules == 2.0
    assert reading.domain == "package-0 + package-1"


def test_rapl_counts_across_the_wrap_around(powercap: Path) -> None:
    running = Rapl(powercap).start()
    add(powercap / "intel-rapl:1/energy_uj", 1_500_000)
    assert int((powercap / "intel-rapl:1/energy_uj").read_text()) == 1_000_000
    assert running.stop().joules == 1.5


@given(st.lists(st.integers(0, 999), min_size=1, max_size=30), st.integers(0, 1000))
def test_what_was_used_adds_up_however_often_it_wraps(used: list[int], first: int) -> None:
    """Between two readings the counter uses less than its range, 1000, so that it wraps once."""
    range_uj, readings = 1000, [first]
    for amount in used:
        total = readings[-1] + amount
        readings.append(total - range_uj if total > range_uj else total)
    pairs = pairwise(readings)
    assert sum(used_uj(before, after, range_uj) for before, after in pairs) == sum(used)


@pytest.mark.parametrize(("before", "after"), [(-1, 5), (5, 1001), (1001, 5)])
def test_a_counter_outside_its_range_is_an_error(before: int, after: int) -> None:
    with pytest.raises(PlaceError, match="a counter of 0 to 1000"):
        used_uj(before, after, 1000)


def test_rapl_sees_a_second_wrap_around_between_its_ends(
    powercap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phoneward.profiles.energy.counters.rapl._EVERY_S", 0.02)
    counter = powercap / "intel-rapl:0/energy_uj"
    running = Rapl(powercap).start()
    for _ in range(3):
        add(counter, RANGE_UJ - 10)
        time.sleep(0.3)
    assert running.stop().joules == pytest.approx(3 * (RANGE_UJ - 10) / 1e6)


def test_rapl_measures_work(powercap: Path) -> None:
    counter = powercap / "intel-rapl:0/energy_uj"
    calls = []

    def work() -> None:
        calls.append(1)
        add(counter, 30_000)
        time.sleep(0.005)

    energy = measure(work, 10, Rapl(powercap), at_least_s=0.0)
    assert energy.seconds >= 0.1
    assert energy.inferences == 10 * len(calls)
    assert energy.joules == pytest.approx(0.003)
    assert (energy.counter, energy.domain) == ("rapl", "package-0 + package-1")


def test_a_counter_that_stands_still_is_no_measurement(powercap: Path) -> None:
    with pytest.raises(PlaceError, match="rapl: the counter did not move"):
        measure(lambda: time.sleep(0.01), 1, Rapl(powercap), at_least_s=0.0)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: shutil.rmtree(root), "virtual machines"),
        (lambda root: [shutil.rmtree(p) for p in root.glob("intel-rapl:[01]")], "modprobe"),
        (lambda root: (root / "intel-rapl:0/energy_uj").unlink(), "No such file"),
        (lambda root: (root / "intel-rapl:0/energy_uj").write_text("-5"), "not a number: '-5'"),
        (lambda root: (root / "intel-rapl:0/energy_uj").write_text("²"), "not a number"),
        (lambda root: (root / "intel-rapl:0/energy_uj").write_bytes(b"\xff"), "not a number"),
        (lambda root: (root / "intel-rapl:1/name").write_text("package-0"), "the same name"),
    ],
)
def test_rapl_says_what_is_missing(
    powercap: Path, spoil: Callable[[Path], object], said: str
) -> None:
    assert Rapl(powercap).available() is None
    spoil(powercap)
    assert said in (Rapl(powercap).available() or "")
    with pytest.raises(PlaceError, match=said):
        Rapl(powercap).start().stop()


@pytest.fixture
def without_rights() -> Iterator[Path]:
    """A folder in which files of mode 0400 are another user's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def test_rapl_says_how_to_be_let_in(without_rights: Path) -> None:
    counter = zone(without_rights, "intel-rapl:0", "package-0")
    if os.geteuid() != 0:
        counter.chmod(0)
        reason = Rapl(without_rights).available()
    else:
        counter.chmod(0o400)
        os.seteuid(65534)
        try:
            reason = Rapl(without_rights).available()
        finally:
            os.seteuid(0)
    assert reason is not None
    assert "for root alone; run as root (sudo)" in reason
    assert f"sudo chmod a+r {without_rights}/intel-rapl:*/energy_uj" in reason


def test_what_goes_wrong_in_the_background_is_told_at_the_end(powercap: Path) -> None:
    values = iter([1])
    sampler = Sampler(lambda: next(values), 0.001)
    time.sleep(0.05)
    with pytest.raises(StopIteration):
        sampler.stop()


def test_samples_are_in_order_and_reach_from_start_to_stop() -> None:
    before = time.monotonic()
    sampler = Sampler(time.monotonic, 0.01)
    started = time.monotonic()
    time.sleep(0.1)
    stopping = time.monotonic()
    samples = sampler.stop()
    moments = [sample.moment_s for sample in samples]
    assert len(samples) >= 3
    assert moments == sorted(moments)
    assert before <= moments[0] <= started
    assert stopping <= moments[-1] <= time.monotonic()


_spans = st.lists(st.tuples(st.floats(0.01, 5), st.floats(0, 50)), min_size=1, max_size=20)


def _windows(spans: list[tuple[float, float]]) -> list[Window]:
    windows, now = [], 0.0
    for seconds, watts in spans:
        windows.append(Window(now, now + seconds, watts))
        now += seconds
    return windows


@given(_spans, st.floats(0, 1))
def test_the_energy_of_two_parts_is_that_of_the_whole(
    spans: list[tuple[float, float]], where: float
) -> None:
    windows = _windows(spans)
    end = windows[-1].stop_s
    joules, covered_s = integrate(windows, 0, end)
    assert joules == pytest.approx(sum(seconds * watts for seconds, watts in spans), abs=1e-9)
    assert covered_s == pytest.approx(end)
    parts = integrate(windows, 0, where * end), integrate(windows, where * end, end)
    assert sum(part[0] for part in parts) == pytest.approx(joules, abs=1e-9)
    assert integrate(windows, end, end + 10) == (0, 0)


@given(st.floats(0, 50), st.lists(st.floats(0.01, 5), min_size=1, max_size=20))
def test_a_constant_power_between_moments_is_power_times_time(
    watts: float, steps: list[float]
) -> None:
    moments = [sum(steps[:index]) for index in range(len(steps) + 1)]
    samples = [Sample(moment, watts) for moment in moments]
    joules, _ = integrate(windows_between(samples), moments[0], moments[-1])
    assert joules == pytest.approx(watts * moments[-1], abs=1e-9)

"""The counter of macOS, against a hand-written property list and a script that prints it."""

from __future__ import annotations

import os
import platform
import plistlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phoneward.errors import PlaceError
from phoneward.profiles.energy.counters.powermetrics import (
    PowerMetrics,
    parse_sample,
    reading_of,
)
from phoneward.profiles.energy.counters.samples import Sample

# as `powermetrics --samplers cpu_power --format plist` writes it, shortened and with made-up values
SAMPLE = b"""\0<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
<key>is_delta</key><true/>
<key>elapsed_ns</key><integer>103250000</integer>
<key>hw_model</key><string>Mac14,2</string>
<key>timestamp</key><date>2025-01-31T12:00:00Z</date>
<key>processor</key>
<dict>
\t<key>clusters</key><array><dict><key>name</key><string>E-Cluster</string></dict></array>
\t<key>cpu_energy</key><integer>423</integer>
\t<key>cpu_power</key><real>4096.85</real>
\t<key>gpu_power</key><real>14.5</real>
\t<key>ane_power</key><real>1388.65</real>
\t<key>combined_power</key><real>5500.0</real>
</dict>
</dict>
</plist>"""


def test_a_sample_of_apples_processor_is_read() -> None:
    seconds, watts, domain = parse_sample(SAMPLE)
    assert (seconds, watts) == (0.10325, 5.5)
    assert domain.startswith("CPU + GPU + Neural Engine")


def test_a_sample_of_intels_processor_is_read() -> None:
    content = {
        "elapsed_ns": 200_000_000,
        "processor": {"package_joules": 3.0, "package_watts": 15.0},
    }
    assert parse_sample(plistlib.dumps(content)) == (0.2, pytest.approx(15.0), "package")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((b"</plist>", b""), "no property list"),
        ((b"plist version", b"list version"), "no property list"),
        ((b"<integer>103250000</integer>", b"<integer>ten</integer>"), "no property list"),
        ((b"103250000", b"0"), "no length"),
        ((b"<integer>103250000</integer>", b"<string>0.1</string>"), "elapsed_ns is '0.1'"),
        ((b"<real>5500.0</real>", b"<real>nan</real>"), "combined_power is nan"),
        ((b"<real>5500.0</real>", b"<real>-1</real>"), "combined_power is -1"),
        ((b"<real>5500.0</real>", b"<true/>"), "combined_power is True"),
        ((b"combined_power", b"power"), "neither combined_power nor package_joules"),
        ((b"<key>processor", b"<key>processors"), "nothing of the processor"),
    ],
)
def test_a_broken_sample_is_an_error(change: tuple[bytes, bytes], said: str) -> None:
    assert change[0] in SAMPLE
    with pytest.raises(PlaceError, match=said):
        parse_sample(SAMPLE.replace(*change))


@given(st.integers(0, len(SAMPLE) - 1), st.binary(max_size=8))
def test_a_damaged_sample_is_read_or_refused(where: int, damage: bytes) -> None:
    damaged = SAMPLE[:where] + damage + SAMPLE[where + len(damage) :]
    try:
        seconds, watts, _ = parse_sample(damaged)
    except PlaceError:
        return
    assert seconds > 0
    assert watts >= 0


def test_samples_that_leave_a_gap_are_an_error() -> None:
    documents = [Sample(moment, SAMPLE) for moment in (0.1, 0.2, 0.8)]
    with pytest.raises(PlaceError, match=r"cover 0\.2 of 0\.8 s"):
        reading_of(documents[:2], 0.0, 0.8)
    with pytest.raises(PlaceError, match=r"cover 0\.3 of 0\.8 s"):
        reading_of(documents, 0.0, 0.8)


def test_samples_stand_for_the_time_before_they_were_seen() -> None:
    slow = SAMPLE.replace(b"5500.0", b"1000.0")
    documents = [Sample(0.1, slow), Sample(0.2, SAMPLE), Sample(0.3, slow)]
    reading = reading_of(documents, 0.15, 0.25)
    assert reading.seconds == pytest.approx(0.1)
    # 50 ms of each, and the windows of 103 ms overlap a little
    assert reading.joules == pytest.approx(0.05 * 5.5 + 0.05 * 1.0, rel=0.03)


FAKE = """
import sys, time
sample = {sample!r}
print("a warning on the side", file=sys.stderr, flush=True)
while True:
    time.sleep(0.10325)
    # in two pieces, as a pipe may give it
    sys.stdout.buffer.write(sample[:200]); sys.stdout.buffer.flush()
    sys.stdout.buffer.write(sample[200:]); sys.stdout.buffer.flush()
"""


@pytest.fixture
def fake(tmp_path: Path) -> Callable[[str], PowerMetrics]:
    def make(script: str) -> PowerMetrics:
        (tmp_path / "powermetrics.py").write_text(script)
        return PowerMetrics((sys.executable, str(tmp_path / "powermetrics.py")))

    return make


def test_powermetrics_runs_beside_the_work(fake: Callable[[str], PowerMetrics]) -> None:
    running = fake(FAKE.format(sample=SAMPLE)).start()
    started_s = time.monotonic()
    time.sleep(1.0)
    seconds = time.monotonic() - started_s
    reading = running.stop()
    assert reading.seconds == pytest.approx(seconds, abs=0.1)
    assert reading.joules == pytest.approx(5.5 * reading.seconds)


def test_powermetrics_that_refuses_is_told_in_its_words(
    fake: Callable[[str], PowerMetrics],
) -> None:
    refused = "powermetrics must be invoked as the superuser"
    for to in ("stdout", "stderr"):
        script = f"import sys; print({refused!r}, file=sys.{to}); sys.exit(1)"
        with pytest.raises(PlaceError, match=f"it ended: {refused}"):
            fake(script).start()


def test_powermetrics_that_says_nothing_is_not_waited_for(
    fake: Callable[[str], PowerMetrics], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phoneward.profiles.energy.counters.powermetrics._PATIENCE_S", 0.5)
    started_s = time.monotonic()
    with pytest.raises(PlaceError, match="no sample within"):
        fake("import time; time.sleep(60)").start()
    assert time.monotonic() - started_s < 10


def test_powermetrics_is_refused_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlaceError, match="does not start: No such file"):
        PowerMetrics(("/nowhere/powermetrics",)).start()
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    assert PowerMetrics().available() == "it is a program of macOS"
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert "on the PATH" in (PowerMetrics(("nowhere-powermetrics",)).available() or "")
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    assert "run with sudo" in (PowerMetrics((sys.executable,)).available() or "")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert PowerMetrics((sys.executable,)).available() is None

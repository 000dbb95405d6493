"""`powermetrics`: what macOS says its processors take, sampled and integrated.

After the manual page of powermetrics(1) and what others read of its property lists. Apple calls
the values estimates, not to be compared between machines.
"""

from __future__ import annotations

import os
import platform
import plistlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from phoneward.errors import PlaceError
from phoneward.profiles.energy.counters import Reading
from phoneward.profiles.energy.counters.samples import Sample, Window, integrate

_PLACE = "powermetrics"
_INTERVAL_MS = 100
_COMMAND = (
    "powermetrics",
    *("--samplers", "cpu_power"),
    *("--sample-rate", str(_INTERVAL_MS)),
    *("--format", "plist"),
    # unbuffered, so that a sample is seen when it is taken
    *("--buffer-size", "0"),
)
_PATIENCE_S = 10.0
# samples are seen a little late, so that the windows do not fit the span exactly
_LEAST_COVERED = 0.9
_END = b"</plist>"


@dataclass(frozen=True)
class PowerMetrics:
    """This Mac, by a `powermetrics` that runs beside the work."""

    command: Sequence[str] = _COMMAND
    name: str = field(default=_PLACE, init=False)
    resolution_s: float = field(default=_INTERVAL_MS / 1000, init=False)

    def available(self) -> str | None:
        """Return why it cannot run; None if it can."""
        if platform.system() != "Darwin":
            return "it is a program of macOS"
        if shutil.which(self.command[0]) is None:
            return f"there is no {self.command[0]} on the PATH; it lies in /usr/bin"
        if os.geteuid() != 0:
            return "it needs root: run with sudo"
        return None

    def start(self) -> _RunningPowerMetrics:
        """Start it and wait for its first sample, so that it is settled when the work begins.

        Raises:
            PlaceError: it does not start, ends, or says nothing.
        """
        stream = _Stream(self.command)
        try:
            stream.wait_for_sample(since_s=0.0)
        except BaseException:
            stream.end()
            raise
        return _RunningPowerMetrics(stream, time.monotonic())


@dataclass(frozen=True)
class _RunningPowerMetrics:
    stream: _Stream
    start_s: float

    def stop(self) -> Reading:
        """Wait for the sample that holds the end of the work; return the energy until then."""
        stop_s = time.monotonic()
        try:
            self.stream.wait_for_sample(since_s=stop_s)
        finally:
            self.stream.end()
        return reading_of(self.stream.documents, self.start_s, stop_s)


class _Stream:
    """The running program; its samples are collected in a thread, each when it is seen."""

    def __init__(self, command: Sequence[str]) -> None:
        self.documents: list[Sample[bytes]] = []
        self._rest = b""
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                bufsize=0,
            )
        except OSError as error:
            self._complaints.close()
            raise PlaceError(_PLACE, f"it does not start: {error.strerror}") from error
        self._executor = ThreadPoolExecutor(1, _PLACE)
        self._reader = self._executor.submit(self._read)

    def wait_for_sample(self, since_s: float) -> None:
        """Wait until a sample was seen at or after that moment of `time.monotonic`."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while not (self.documents and self.documents[-1].moment_s >= since_s):
            if self._reader.done():
                self._reader.result()
                raise PlaceError(_PLACE, f"it ended: {self._last_words()}")
            if time.monotonic() > deadline_s:
                raise PlaceError(_PLACE, f"no sample within {_PATIENCE_S:.0f} s")
            time.sleep(0.01)

    def end(self) -> None:
        """End the program and wait for it."""
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._executor.shutdown()
        self._complaints.close()

    def _read(self) -> None:
        output = self._process.stdout
        assert output is not None
        with output:
            while chunk := output.read(65536):
                moment_s = time.monotonic()
                self._rest += chunk
                # the separating NUL comes with the next sample only
                while _END in self._rest:
                    document, _, self._rest = self._rest.partition(_END)
                    self.documents.append(Sample(moment_s, document + _END))

    def _last_words(self) -> str:
        self._complaints.seek(0)
        said = self._rest + b"\n" + self._complaints.read()
        lines = said.decode("utf-8", "replace").strip("\0\r\n ").splitlines()
        return lines[-1] if lines else "it said nothing"


def reading_of(documents: Sequence[Sample[bytes]], start_s: float, stop_s: float) -> Reading:
    """Integrate samples over a span, each over the time before the moment at which it was seen.

    Raises:
        PlaceError: a sample cannot be read, or they do not cover the span.
    """
    windows, domains = [], set()
    for document in documents:
        seconds, watts, domain = parse_sample(document.value)
        windows.append(Window(document.moment_s - seconds, document.moment_s, watts))
        domains.add(domain)
    span_s = stop_s - start_s
    joules, covered_s = integrate(windows, start_s, stop_s)
    if not _LEAST_COVERED * span_s <= covered_s <= span_s / _LEAST_COVERED:
        raise PlaceError(_PLACE, f"its samples cover {covered_s:.1f} of {span_s:.1f} s")
    if len(domains) > 1:
        raise PlaceError(_PLACE, "its samples are of different domains")
    # the mean power of what is covered, for the whole span
    return Reading(joules / covered_s * span_s, span_s, domains.pop())


def parse_sample(document: bytes) -> tuple[float, float, str]:
    """Read one property list: the seconds it is of, the mean power in watts, and what it is of.

    Apple's own processors give `combined_power` in milliwatts (CPU, GPU and Neural Engine; not the
    memory), Intel's `package_joules`.

    Raises:
        PlaceError: it is no such property list.
    """
    content = _plist(document.strip(b"\0 \r\n\t"))
    seconds = _number(content, "elapsed_ns") / 1e9
    if seconds <= 0:
        raise PlaceError(_PLACE, "a sample of no length")
    processor = content.get("processor")
    if not isinstance(processor, dict):
        raise PlaceError(_PLACE, "a sample says nothing of the processor")
    if "combined_power" in processor:
        domain = "CPU + GPU + Neural Engine, as powermetrics estimates"
        return seconds, _number(processor, "combined_power") / 1000, domain
    if "package_joules" in processor:
        return seconds, _number(processor, "package_joules") / seconds, "package"
    raise PlaceError(_PLACE, "a sample has neither combined_power nor package_joules")


def _plist(document: bytes) -> dict[str, Any]:
    try:
        content = plistlib.loads(document, fmt=plistlib.FMT_XML)
    # of plistlib and of the parser below it: whatever it is, the document is not what it should be
    except Exception as error:
        raise PlaceError(_PLACE, f"a sample that is no property list: {error}") from error
    if not isinstance(content, dict):
        raise PlaceError(_PLACE, "a sample that is no dictionary")
    return content


def _number(content: dict[str, Any], key: str) -> float:
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
        raise PlaceError(_PLACE, f"a sample's {key} is {value!r}")
    return float(value)

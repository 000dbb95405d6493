"""Predictions next to measurements, and kernels' work next to their times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from phoneward.errors import UnknownName
from phoneward.names import Precision
from phoneward.profiles.device import Fact, load_device
from phoneward.profiles.kernels import Kernel
from phoneward.profiles.report.figures import central
from phoneward.profiles.report.page.entries import Entry
from phoneward.profiles.report.schema import StageReport

_BANDWIDTH = "dram_peak_gbps"


@dataclass(frozen=True)
class Met:
    """A prediction and a measurement of the same stage and precision of the same model.

    `inside` tells whether the prediction's interval holds the measurement; None where they are not
    known to be of the same kind of device.
    """

    predicted: Entry
    measured: Entry
    inside: bool | None
    ratio: float | None


@dataclass(frozen=True)
class Point:
    """A module's kernels: MACs a byte, GMAC/s, and the share of all modules' time."""

    intensity: float
    rate: float
    share: float


@dataclass(frozen=True)
class Roofline:
    """The points of an entry and the memory's rate, where the device's file tells it."""

    entry: Entry
    points: tuple[Point, ...]
    bandwidth: Fact | None
    whole: bool


def met(entries: Sequence[Entry]) -> list[Met]:
    """Pair every prediction with the measurements of the same stage."""
    found = []
    for predicted in entries:
        for measured in entries:
            if predicted.predicted is None or measured.measured is None:
                continue
            if not _same(predicted, measured):
                continue
            time = central(measured.stage.result).value
            low, high = predicted.predicted.interval_ms
            device = predicted.machine.device
            alike = device is not None and device == measured.machine.device
            ratio = predicted.predicted.latency_ms / time if alike and time else None
            inside = low <= time <= high if alike else None
            found.append(Met(predicted, measured, inside, ratio))
    return found


def _same(one: Entry, other: Entry) -> bool:
    return (
        one.report.subject.model == other.report.subject.model
        and one.stage.stage == other.stage.stage
        # a prediction may not tell its precision
        and (one.stage.precision or other.stage.precision)
        == (other.stage.precision or one.stage.precision)
    )


def rooflines(entries: Sequence[Entry]) -> list[Roofline]:
    """Return a roofline of each timed entry whose kernels are known, from whichever report."""
    found = []
    for entry in entries:
        kernels = _kernels(entry, entries)
        if entry.emulated is not None or not kernels:
            continue
        points = _points(entry, kernels)
        whole = not points
        if whole:
            time = central(entry.stage.result).value
            points = _joined({None: kernels}, {None: time}, entry.stage)
        if points:
            found.append(Roofline(entry, points, _bandwidth(entry), whole))
    return found


def _kernels(entry: Entry, entries: Iterable[Entry]) -> tuple[Kernel, ...]:
    if entry.stage.kernels:
        return entry.stage.kernels
    for other in entries:
        same = other.report.subject.model == entry.report.subject.model
        if same and other.stage.stage == entry.stage.stage and other.stage.kernels:
            return other.stage.kernels
    return ()


def _points(entry: Entry, kernels: Sequence[Kernel]) -> tuple[Point, ...]:
    work: dict[str | None, list[Kernel]] = {}
    for kernel in kernels:
        if kernel.module is not None:
            work.setdefault(kernel.module, []).append(kernel)
    times: dict[str | None, float] = {}
    for module, time in _times(entry):
        if module is not None:
            times[module] = times.get(module, 0.0) + time
    return _joined(work, times, entry.stage)


def _times(entry: Entry) -> Iterable[tuple[str | None, float]]:
    if entry.measured is not None:
        return [(op.module, op.median_ns / 1e6) for op in entry.measured.ops]
    if entry.predicted is not None:
        return [(part.module, part.latency_ms) for part in entry.predicted.breakdown]
    return []


def _joined(
    work: Mapping[str | None, Sequence[Kernel]],
    times: Mapping[str | None, float],
    stage: StageReport,
) -> tuple[Point, ...]:
    total = sum(times.values()) or 1.0
    points = []
    for module, kernels in work.items():
        time = times.get(module, 0.0)
        macs = sum(kernel.macs for kernel in kernels)
        moved = sum(_moved(kernel, stage) for kernel in kernels)
        if time > 0 and macs and moved:
            points.append(Point(macs / moved, macs / time / 1e6, time / total))
    return tuple(points)


def _moved(kernel: Kernel, stage: StageReport) -> int:
    """Bytes: int8 is of linear layers' weights; the rest is single precision, Core ML's half."""
    int8 = stage.precision is Precision.INT8
    half = stage.precision is Precision.FP16 or (int8 and stage.format == "coreml")
    value = 2 if half else 4
    weight = 1 if int8 and kernel.kind == "linear" else value
    return value * (kernel.reads + kernel.writes) + weight * kernel.params


def _bandwidth(entry: Entry) -> Fact | None:
    if entry.machine.device is None:
        return None
    try:
        return load_device(entry.machine.device).facts.get(_BANDWIDTH)
    except UnknownName:  # a report from elsewhere may name a device that we have no file of
        return None

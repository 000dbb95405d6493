"""Core ML on a connected iPhone or iPad, timed by coremltools' remote device; macOS only.

This file has not been run: Phoneward is developed on Linux. It follows coremltools 9,
`coremltools.models.ml_program.experimental` (`remote_device.Device`, `perf_utils.
MLModelBenchmarker`), which builds an app with Xcode, puts it on the device and talks to it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from phoneward.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")


@dataclass(frozen=True)
class ConnectedDevice:
    """A device as coremltools describes it; `handle` is its own object."""

    name: str
    kind: str
    os: str
    identifier: str
    handle: Any


@dataclass(frozen=True)
class Timings:
    """What a device measured, in nanoseconds: each load, and each prediction in order."""

    load_ns: tuple[int, ...]
    predict_ns: tuple[int, ...]


@dataclass(frozen=True)
class Wish:
    """What is to be timed: a package, its inputs by name, and how often."""

    path: Path
    inputs: Mapping[str, NDArray[Any]]
    loads: int
    predictions: int


def connected_devices() -> list[ConnectedDevice]:
    """List the iPhones and iPads that are connected; raises `EngineError` with what is missing."""
    from coremltools.models.ml_program.experimental import remote_device

    kinds = (remote_device.DeviceType.IPHONE, remote_device.DeviceType.IPAD)
    try:
        found = [d for kind in kinds for d in remote_device.Device.get_connected_devices(kind)]
    except Exception as error:  # whatever devicectl or its answer gives rise to
        raise EngineError(f"connected devices cannot be listed: {error}") from error
    return [ConnectedDevice(d.name, d.type.value, d.os_version, d.udid, d) for d in found]


def time_on(device: ConnectedDevice, team: str, wishes: list[Wish]) -> list[Timings]:
    """Build and launch the app once, time each package on all compute units, and stop the app.

    `team` is the Apple developer team that signs the app. Raises `EngineError`.
    """
    for wish in wishes:
        _check_inputs(wish)
    return _finish(_time_on(device, team, wishes), f"{device.name}: timing failed")


async def _time_on(device: ConnectedDevice, team: str, wishes: list[Wish]) -> list[Timings]:
    from coremltools.models.ml_program.experimental import remote_device

    signing = remote_device.AppSigningCredentials(development_team=team)
    with tempfile.TemporaryDirectory(prefix="phoneward-ios-") as folder:
        ready = await device.handle.prepare_for_model_debugging(
            credentials=signing, working_directory=Path(folder)
        )
        try:
            return [await _timings(ready, wish) for wish in wishes]
        finally:
            ready.session.stop()


async def _timings(ready: Any, wish: Wish) -> Timings:
    from coremltools.models import MLModel
    from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker

    model = MLModel(str(wish.path), skip_model_load=True)
    benchmarker = MLModelBenchmarker(model=model, device=ready)
    loads = await benchmarker.benchmark_load(iterations=wish.loads)
    predictions = await benchmarker.benchmark_predict(
        inputs=dict(wish.inputs), iterations=wish.predictions, warmup=False
    )
    return Timings(samples_of(loads), samples_of(predictions))


def samples_of(measurement: Any) -> tuple[int, ...]:
    """Translate a `MLModelBenchmarker.Measurement`, which is in milliseconds, into nanoseconds."""
    samples = tuple(round(ms * 1e6) for ms in measurement.samples)
    if not samples or min(samples) <= 0:
        raise EngineError(f"coremltools gave times that are none: {list(measurement.samples)}")
    return samples


def _check_inputs(wish: Wish) -> None:
    from coremltools.models.utils import load_spec

    try:
        features = load_spec(str(wish.path)).description.input
    except Exception as error:  # coremltools raises anything over a damaged package
        raise EngineError(f"{wish.path}: cannot be loaded: {error}") from error
    images = [f.name for f in features if f.type.WhichOneof("Type") == "imageType"]
    if images:
        raise EngineError(
            f"{wish.path} takes images ({', '.join(images)}), and coremltools' app on the device "
            "takes arrays alone"
        )


def _finish(work: Coroutine[Any, Any, T], what: str) -> T:
    try:
        return asyncio.run(work)
    except EngineError:
        raise
    except Exception as error:  # xcodebuild, devicectl, the app: anything may fail
        raise EngineError(f"{what}: {error}") from error

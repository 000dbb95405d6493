"""`ios[:DEVICE]`: Core ML on a connected iPhone or iPad, from a Mac with Xcode.

It has not been run for this version: Phoneward is developed on Linux.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from phoneward import __version__
from phoneward.errors import EngineError, PlaceError, PlaceUnreachable
from phoneward.names import Provenance
from phoneward.profiles.bundle_kernels import kernels_if_stated
from phoneward.profiles.measure.stage import Ran, stage_report
from phoneward.profiles.measure.subset import wanted_artifacts
from phoneward.profiles.report.schema import LatencyReport, Machine, Measured, StageReport, Subject
from phoneward.runtime.artifacts import check_unchanged
from phoneward.runtime.engines import ENGINES
from phoneward.runtime.parity import Reference

if TYPE_CHECKING:
    from phoneward.bundle import Artifact
    from phoneward.profiles.measure import Request
    from phoneward.runtime.engines.coreml_benchmark import ConnectedDevice, Timings, Wish

TEAM = "DEVELOPMENT_TEAM"
_WARMUP_RUNS = 5


def profile(address: str, request: Request, progress: Callable[[str], None]) -> LatencyReport:
    """Time Core ML packages on a connected device; `address` is its name or UDID, or empty.

    Raises:
        PlaceUnreachable: no such device is connected.
        PlaceError: this is no Mac, no team signs the app, several devices, or the timing failed.
        MissingExtra: coremltools is not installed.
        BundleError, ArtifactChanged, UnknownName: of the bundle or of what is asked of it.
    """
    place = f"ios:{address}" if address else "ios"
    if sys.platform != "darwin":
        raise PlaceError(place, f"needs macOS with Xcode; this is {sys.platform}")
    if request.sustained_s or request.frames:
        raise PlaceError(place, "neither a sustained run nor tracking end to end is offered there")
    ENGINES.require("coreml")
    chosen = wanted_artifacts(request, {"coreml"}, place)
    team = os.environ.get(TEAM)
    if not team:
        raise PlaceError(place, f"set {TEAM} to the Apple developer team that signs the app")
    from phoneward.runtime.engines.coreml_benchmark import connected_devices, time_on

    try:
        device = choose_device(place, address, connected_devices())
        progress(f"building the app for {device.name}, which takes minutes")
        timed = time_on(device, team, [_wish(request, artifact) for artifact in chosen])
    except EngineError as error:
        raise PlaceError(place, str(error)) from error
    return assemble(place, request, device, list(zip(chosen, timed, strict=True)))


def choose_device(place: str, address: str, devices: list[ConnectedDevice]) -> ConnectedDevice:
    """Return the device of this name or UDID, or the only one."""
    fitting = [d for d in devices if address in ("", d.name, d.identifier)]
    known = ", ".join(d.name for d in devices) or "none"
    if not fitting:
        raise PlaceUnreachable(place, f"no such device is connected; there is: {known}")
    if len(fitting) > 1:
        raise PlaceError(place, f"several devices are connected; say ios:NAME: {known}")
    return fitting[0]


def _wish(request: Request, artifact: Artifact) -> Wish:
    from phoneward.runtime.engines.coreml_benchmark import Wish

    path = request.bundle.file(artifact)
    check_unchanged(path, artifact.sha256)
    reference = Reference.load(request.bundle.path / request.bundle.manifest.reference)
    stage = artifact.stage
    inputs = {
        spec.name: reference.arrays[f"{stage}/input/{spec.name}"][0].astype(spec.dtype)
        for spec in artifact.inputs
    }
    # the first load is the cold one, and counts as one of a process that had never loaded it
    return Wish(path, inputs, 1 + request.cold_starts, 1 + _WARMUP_RUNS + request.runs)


def assemble(
    place: str,
    request: Request,
    device: ConnectedDevice,
    timed: list[tuple[Artifact, Timings]],
) -> LatencyReport:
    """Make a report of what a device measured."""
    return LatencyReport(
        provenance=Provenance.MEASURED,
        created=datetime.now(timezone.utc),
        phoneward=__version__,
        place=place,
        subject=Subject(
            model=request.bundle.manifest.model, weights=request.bundle.manifest.weights.kind
        ),
        machine=Machine(name=device.name, device=request.device, os=f"iOS {device.os}"),
        tools={"coremltools": _version()},
        stages=tuple(_stage(request, artifact, timings) for artifact, timings in timed),
        warnings=("the system may keep a compiled package: the first load may be no cold one",),
    )


def _stage(request: Request, artifact: Artifact, timings: Timings) -> StageReport:
    first, *rest = timings.predict_ns
    measured = Measured(
        samples_ns=tuple(rest[_WARMUP_RUNS:]),
        first_ns=first,
        warmup_runs=_WARMUP_RUNS,
        cold_load_ns=timings.load_ns[:1],
        warm_load_ns=timings.load_ns[1:],
    )
    kernels = kernels_if_stated(request.bundle, artifact)
    return stage_report(artifact, Ran("coreml"), measured, kernels)


def _version() -> str:
    try:
        return version("coremltools")
    except PackageNotFoundError:
        return "unknown"

"""A device that a user has measured a few models on: those measurements condition the process.

Five to ten models suffice, because everything else is known from other devices: how quick the
device is at what kinds of work is all that is left to learn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, FiniteFloat, ValidationError

from phoneward.errors import PredictionError
from phoneward.names import Precision
from phoneward.profiles.device import DeviceName, device_names, load_device
from phoneward.profiles.kernels import StageKernels
from phoneward.profiles.predict.features import COLUMNS, graph_features
from phoneward.profiles.predict.group import Group, numeric_of
from phoneward.profiles.predict.parameters import load_parameters, shipped_rows
from phoneward.profiles.predict.process import Posterior
from phoneward.profiles.predict.socs import soc_name
from phoneward.profiles.predict.targets import Target, runtime_of, unit_of
from phoneward.spec import Spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_LAB = "own"
_Amounts = Annotated[
    tuple[Annotated[FiniteFloat, Field(ge=0)], ...],
    Field(min_length=len(COLUMNS), max_length=len(COLUMNS)),
]


@dataclass(frozen=True)
class Anchor:
    """One measurement of a graph on the device.

    Attributes:
        kernels: of the graph.
        latency_ms: of one inference, a median.
        runtime: what ran it, as in `Target`.
        unit: what executed it; None: what the runtime uses as a rule.
        precision: of the artifact.
        label: for a reader.
    """

    kernels: StageKernels
    latency_ms: float
    runtime: str
    unit: str | None = None
    precision: Precision | str = "fp32"
    label: str = ""


class CalibrationRow(Spec):
    """An anchor as a calibration keeps it: its graph as amounts of features."""

    label: str
    latency_ms: Annotated[FiniteFloat, Field(gt=0)]
    runtime: str
    unit: str
    threads: str
    numeric: str
    amounts: _Amounts


class Calibration(Spec):
    """What is known of a device from its own measurements; one file.

    Attributes:
        device: name under which predictions ask for it.
        soc: its chip, so that what is published of the chip helps too; the device's name if
            nothing is known of it.
        columns: names of the amounts.
        anchors: the measurements.
    """

    kind: Literal["calibration"] = "calibration"
    schema_version: Literal[1] = 1
    device: DeviceName
    soc: Annotated[str, Field(min_length=1)]
    columns: tuple[str, ...] = COLUMNS
    anchors: Annotated[tuple[CalibrationRow, ...], Field(min_length=1)]

    def group(self, target: Target) -> Group:
        """Return the group of a target; what it leaves open is as most anchors have it.

        Raises:
            PredictionError: the target is another device, or nothing like it was measured.
        """
        if target.device != self.device:
            raise PredictionError(f"this calibration is of {self.device}, not {target.device}")
        groups = [self._group(row) for row in self.anchors]
        if target.runtime is not None:
            runtime = runtime_of(target.runtime)
            groups = [group for group in groups if group.runtime == runtime] or groups
        usual = Counter(groups).most_common(1)[0][0]
        unit, threads = usual.unit, usual.threads
        if target.unit is not None:
            unit, threads = unit_of(target.unit, usual.runtime, ())
        return Group(
            unit=unit,
            soc=self.soc,
            device=self.device,
            runtime=runtime_of(target.runtime) if target.runtime else usual.runtime,
            numeric=numeric_of(str(target.precision)) if target.precision else usual.numeric,
            threads=threads,
            lab=_LAB,
        )

    @cached_property
    def posterior(self) -> Posterior:
        """The shipped fit, conditioned on the shipped rows and on the anchors."""
        shipped = shipped_rows()
        amounts = np.array([row.amounts for row in self.anchors])
        points = shipped.points.extended(amounts, [self._group(row) for row in self.anchors])
        own = np.log([row.latency_ms for row in self.anchors])
        return Posterior(
            load_parameters().prior,
            points,
            np.concatenate([shipped.log_ms, own]),
            np.concatenate([shipped.noise, np.ones(len(own))]),
        )

    def _group(self, row: CalibrationRow) -> Group:
        return Group(row.unit, self.soc, self.device, row.runtime, row.numeric, row.threads, _LAB)


def calibrate(device: str, anchors: Sequence[Anchor], soc: str | None = None) -> Calibration:
    """Make a calibration from measurements.

    Args:
        device: name of a device file, or a new one.
        anchors: at least one; five to ten of different kinds are useful.
        soc: chip of a new device, if it is known.

    Raises:
        PredictionError: there is no anchor, one has no kernels or no positive time, the name is
            no device name, or a runtime, unit or precision is unknown.
    """
    if not anchors:
        raise PredictionError(f"{device}: a calibration needs at least one measurement")
    if soc is None and device in device_names():
        soc = load_device(device).soc
    try:
        return Calibration(
            device=device,
            soc=soc_name(soc or device),
            anchors=tuple(_row(anchor) for anchor in anchors),
        )
    except ValidationError as error:
        raise PredictionError(f"{device}: {_first(error)}") from error


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration as one JSON file."""
    path.write_text(calibration.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_calibration(path: Path) -> Calibration:
    """Read a calibration; raises `PredictionError` if there is none or it is damaged."""
    try:
        found = Calibration.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PredictionError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise PredictionError(f"{path}: {_first(error)}") from error
    if found.columns != COLUMNS:
        raise PredictionError(f"{path}: made by another version; calibrate again")
    return found


def _row(anchor: Anchor) -> CalibrationRow:
    if not anchor.kernels.kernels:
        raise PredictionError(f"{anchor.label or anchor.kernels.stage}: a graph without kernels")
    runtime = runtime_of(anchor.runtime)
    unit, threads = unit_of(anchor.unit, runtime, ())
    return CalibrationRow(
        label=anchor.label or anchor.kernels.stage,
        latency_ms=anchor.latency_ms,
        runtime=runtime,
        unit=unit,
        threads=threads,
        numeric=numeric_of(str(anchor.precision)),
        amounts=tuple(float(amount) for amount in graph_features(anchor.kernels.kernels)),
    )


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))

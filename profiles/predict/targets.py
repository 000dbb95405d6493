"""From what a user asks for to the group of measurements that is nearest to it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from phoneward.errors import PredictionError
from phoneward.names import Precision
from phoneward.profiles.device import Device, load_device
from phoneward.profiles.predict.group import UNITS, Group, numeric_of
from phoneward.profiles.predict.socs import soc_name

RUNTIMES = ("coreml", "tflite", "onnxruntime", "executorch", "qnn", "ncnn", "mnn")
_RUNTIME_OF = {
    "coreml": "coreml",
    "tflite": "tflite",
    "litert": "tflite",
    "onnx": "onnxruntime",
    "onnxruntime": "onnxruntime",
    "executorch": "executorch",
    "qnn": "qnn",
    "ncnn": "ncnn",
    "mnn": "mnn",
}
_UNIT_OF = {"coreml": "ane", "qnn": "npu"}
# what a chip's rows are tried for, when nobody says which unit
_PREFERRED = ("ane", "npu", "cpu", "gpu", "nnapi")
_THREADS = ("4t big", "4t all", "8t big", "", "1t big")
_CORES = re.compile(r"[1-9]\d?t (big|little|all)")
# the newest laboratory whose ways a prediction follows, by unit and runtime
_LABS = {"npu": "ai-hub-0.47", "ane": "coreml-ios16"}


@dataclass(frozen=True)
class Target:
    """What a latency is asked for.

    Attributes:
        device: name of a device file, or of a calibration.
        runtime: one of RUNTIMES or an artifact's format; None: the device's preferred export.
        unit: `ane`, `npu`, `gpu`, `cpu`, or a `cpu` with threads: `cpu 1t big`, `cpu 4t all`;
            None: what this runtime uses there.
        precision: `fp16`, `fp32`, `int8`, `w8a8`, `w8a16`; None: of the preferred export.
    """

    device: str
    runtime: str | None = None
    unit: str | None = None
    precision: Precision | str | None = None


def group_of(target: Target, groups: Sequence[Group]) -> Group:
    """Return the group a target belongs to: one of `groups` if it is there, else its own.

    Raises:
        UnknownName: there is no device of that name.
        PredictionError: no such runtime, unit or precision; the error lists those that there are.
    """
    device = load_device(target.device)
    export = device.exports[0]
    runtime = runtime_of(target.runtime or export.format)
    numeric = numeric_of(str(target.precision or export.precision))
    soc = soc_name(device.soc)
    unit, threads = unit_of(target.unit, runtime, [g for g in groups if g.soc == soc])
    wanted = Group(unit, soc, target.device, runtime, numeric, threads)
    return nearest(wanted, groups, device)


def nearest(wanted: Group, groups: Sequence[Group], device: Device | None) -> Group:
    """Return the measured group that a wanted one stands for, else the wanted one in a lab."""
    alike = [group for group in groups if _stands_for(group, wanted)]
    if alike:
        return max(alike, key=lambda group: _closeness(group, wanted, device))
    sisters = [g for g in groups if g.unit == wanted.unit and g.runtime == wanted.runtime]
    labs = Counter(group.lab for group in sisters)
    lab = _LABS.get(wanted.unit) or (labs.most_common(1)[0][0] if labs else "")
    if wanted.unit == "cpu" and not wanted.threads:
        used = {group.threads for group in sisters}
        wanted = replace(wanted, threads=next((t for t in _THREADS if t in used), ""))
    return replace(wanted, lab=lab)


def _stands_for(group: Group, wanted: Group) -> bool:
    return (
        group.unit == wanted.unit
        and group.soc == wanted.soc
        and group.runtime == wanted.runtime
        and group.numeric == wanted.numeric
        and wanted.threads in ("", group.threads)
    )


def _closeness(group: Group, wanted: Group, device: Device | None) -> tuple[bool, int, bool]:
    slug = re.sub(r"[^a-z0-9]+", "-", group.device.lower()).strip("-")
    named = device is not None and slug.endswith(device.name)
    rank = -_THREADS.index(group.threads) if group.threads in _THREADS else -len(_THREADS)
    return (named, rank, group.lab == _LABS.get(wanted.unit))


def runtime_of(name: str) -> str:
    """Return the runtime of a name, or of an artifact's format; raises `PredictionError`."""
    try:
        return _RUNTIME_OF[name]
    except KeyError:
        raise PredictionError(f"no runtime '{name}': one of {', '.join(RUNTIMES)}") from None


def unit_of(asked: str | None, runtime: str, here: Sequence[Group]) -> tuple[str, str]:
    """Return unit and threads of what was asked, else what the runtime uses on measured groups.

    Raises:
        PredictionError: there is no such unit, or it has no such threads.
    """
    if asked is not None:
        unit, _, threads = asked.partition(" ")
        if unit not in UNITS:
            raise PredictionError(f"no unit '{unit}': one of {', '.join(UNITS)}")
        if threads and not (unit == "cpu" and _CORES.fullmatch(threads)):
            raise PredictionError(
                f"no unit '{asked}': only a cpu has threads, as 'cpu 4t big', 'cpu 1t little' or "
                "'cpu 2t all'"
            )
        return unit, threads
    if runtime in _UNIT_OF:
        return _UNIT_OF[runtime], ""
    measured = {group.unit for group in here if group.runtime == runtime}
    return next((unit for unit in _PREFERRED if unit in measured), "cpu"), ""

"""What a reader must know of this machine to place the figures."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from phoneward import __version__
from phoneward.profiles.measure.local.noise import load_average
from phoneward.profiles.measure.local.pinning import usable_cores
from phoneward.profiles.report.schema import Machine

_CPU = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")
_BOARD = Path("/proc/device-tree/model")
_DISTRIBUTIONS = {
    "litert": ("ai-edge-litert", "tflite-runtime"),
    "onnxruntime": ("onnxruntime",),
    "executorch": ("executorch",),
    "coreml": ("coremltools",),
    "mil": ("coremltools", "torch"),
}


def this_machine(device: str | None) -> Machine:
    """Describe the processor, the memory, the system and what may change its speed."""
    cpu = _cpu_name()
    return Machine(
        name=_text(_BOARD).rstrip("\0") or cpu,
        device=device,
        os=f"{platform.system()} {platform.release()}",
        cpu=cpu,
        architecture=platform.machine() or None,
        cores=len(usable_cores()),
        memory_bytes=_memory_bytes(),
        facts=_facts(),
    )


def tools(engines: set[str]) -> dict[str, str]:
    """Versions of Python, of Phoneward, and of the engines' packages."""
    found = {"phoneward": __version__, "python": platform.python_version()}
    for name in ("numpy", *(n for engine in sorted(engines) for n in _DISTRIBUTIONS[engine])):
        if (number := _version(name)) is not None:
            found[name] = number
    return found


def engine_version(engine: str) -> str | None:
    """Version of the package that an engine is; None where it has no metadata."""
    return next((v for name in _DISTRIBUTIONS[engine] if (v := _version(name))), None)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _facts() -> dict[str, str]:
    facts = {"file cache": "warm: the files of cold loads were read shortly before"}
    load = load_average()
    if load is not None:
        facts["load average before"] = f"{load:.2f}"
    governors = {_text(path) for path in _CPU.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    if governors:
        facts["governor"] = ", ".join(sorted(governors))
    if most := _text(_CPU / "cpu0/cpufreq/cpuinfo_max_freq"):
        facts["highest clock"] = f"{int(most) / 1e6:.2f} GHz" if most.isdigit() else most
    for zone in sorted(_THERMAL.glob("thermal_zone*")):
        kind, value = _text(zone / "type"), _text(zone / "temp")
        if kind and value.lstrip("-").isdigit():
            facts[f"temperature before, {kind}"] = f"{int(value) / 1000:.1f} °C"
    return facts


def _cpu_name() -> str:
    lines = _text(Path("/proc/cpuinfo")).splitlines()
    pairs = (line.partition(":") for line in lines if ":" in line)
    names = {key.strip(): value.strip() for key, _, value in pairs}
    known = names.get("model name") or names.get("Model") or names.get("Hardware")
    return known or platform.processor() or platform.machine() or "unknown"


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _text(path: Path) -> str:
    """Contents of a file of the system's; empty where there is none or it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

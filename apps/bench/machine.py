"""What a reader must know of the machine to place the figures."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from phoneward import __version__
from phoneward.apps.bench.records import Machine
from phoneward.export.cache import versions

DISTRIBUTIONS: tuple[str, ...] = (
    "torch",
    "timm",
    "executorch",
    "litert-torch",
    "ai-edge-litert",
    "onnx",
)
DISTRIBUTIONS += ("onnxscript", "onnxruntime", "coremltools", "numpy")

# options that say where or how many at a time, not what: a page does not quote them
_PLACES = {"--work", "--lock", "-o", "--output", "--jobs"}


def this_machine() -> Machine:
    """Describe the processor, the cores this process may use, the system and the packages."""
    return Machine(
        cpu=_cpu(),
        cores=usable_cores(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        versions={"phoneward": __version__, **versions(DISTRIBUTIONS)},
    )


def usable_cores() -> int:
    """Cores that this process is allowed to run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quoted_command(module: str, arguments: Sequence[str]) -> str:
    """The command that makes a page again, without the folders it was made in."""
    kept = []
    words = iter(arguments)
    for word in words:
        if word in _PLACES:
            next(words, None)
        elif word.partition("=")[0] not in _PLACES:
            kept.append(word)
    return shlex.join(["python", "-m", module, *kept])


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    names = {key.strip(): value.strip() for key, value in facts.items()}
    return names.get("model name") or names.get("Model") or platform.machine()

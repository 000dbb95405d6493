"""What the tests of the emulator share: its sandbox, if the user has one, and programs to run.

The sandbox is the user's (`phoneward doctor --emulator`), linked into a cache of the test's own.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from phoneward.cache_root import default_root
from phoneward.profiles.measure.emulator.cores import CORES
from phoneward.profiles.measure.emulator.guest import PATIENCE, Emulator, Program
from phoneward.profiles.measure.emulator.sandbox import (
    PREPARE,
    QEMU,
    Sandbox,
    open_sandbox,
    sandbox_folder,
)
from phoneward.spec import TensorSpec

CROSS = "aarch64-linux-gnu-gcc"
# as the module is imported, before a fixture points it elsewhere
_PREPARED = default_root() / "qemu" / sandbox_folder().name


def _why_not() -> str | None:
    for tool in (QEMU, CROSS):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    return None if _PREPARED.exists() else f"no emulator is prepared: {PREPARE}"


needs_emulator = pytest.mark.skipif(_why_not() is not None, reason=_why_not() or "")


def own_cache(folder: Path) -> Path:
    """A cache with the user's sandbox in it; returns the folder that emulation may write to."""
    (folder / "qemu").mkdir(parents=True)
    (folder / "qemu" / _PREPARED.name).symlink_to(_PREPARED)
    return folder / "qemu"


def copied_sandbox(folder: Path) -> Sandbox:
    """A sandbox to damage, in place of the one in `folder`."""
    sandbox = open_sandbox("qemu")
    sandbox.path.unlink()
    shutil.copytree(_PREPARED, sandbox.path)
    assert sandbox.path.parent == folder
    return sandbox


def emulator(core: str, sandbox: Sandbox | None = None, patience: float = PATIENCE) -> Emulator:
    place = f"qemu:{core}"
    return Emulator(place, CORES[core], sandbox or open_sandbox(place), patience)


def compile_runner(sandbox: Sandbox, code: str, folder: Path) -> None:
    """Put a program of the test's in place of LiteRT's runner."""
    source = folder / "runner.c"
    source.write_text(code, encoding="ascii")
    runner = sandbox.runner("litert")
    runner.unlink()
    command = [CROSS, "-march=armv8.2-a+fp16", "-O1", "-w", str(source), "-o", str(runner)]
    subprocess.run(command, check=True)


def some_program(folder: Path) -> tuple[Program, dict[str, np.ndarray[tuple[int, ...], np.dtype]]]:
    """A program whose model nobody reads, with one input and one output of two floats."""
    model = folder / "model.tflite"
    model.write_bytes(b"nothing")
    side = [TensorSpec(name=name, shape=(1, 2), layout="NC") for name in ("x", "y")]
    tensors = {"x": np.zeros((1, 2), dtype=np.float32)}
    return Program("litert", model, (side[0],), (side[1],)), tensors

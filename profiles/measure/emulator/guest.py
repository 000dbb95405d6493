"""Run an artifact on an emulated processor: its answers, and the instructions it retired."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.errors import PlaceError, WrongArchitecture
from phoneward.profiles.measure.emulator.folders import working_folder
from phoneward.profiles.measure.emulator.processes import Finished, TimedOut, run_to_end
from phoneward.profiles.measure.emulator.sandbox import is_aarch64

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.profiles.measure.emulator.cores import Core
    from phoneward.profiles.measure.emulator.sandbox import Sandbox
    from phoneward.spec import TensorSpec

PATIENCE = 3600.0  # seconds for all inferences of one artifact
_ANSWER = 60.0  # seconds for a question
_READY, _DONE = "phoneward runner 1", "done"
_COUNTS = re.compile(r"inference (\d+) strangers (\d+)((?: [a-z0-9_]+ \d+)+)")


@dataclass(frozen=True)
class Program:
    """An artifact, the engine that runs it, and its tensors in order."""

    engine: str
    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Counted:
    """What an emulated processor did.

    Attributes:
        instructions: retired in each counted inference, in order.
        by_class: those of the last one by class, without classes that have none; they add up to
            its instructions.
        outputs: answers of the last one by name.
    """

    instructions: tuple[int, ...]
    by_class: dict[str, int]
    outputs: dict[str, NDArray[Any]]

    @property
    def identical(self) -> bool:
        """Whether every inference retired as many instructions."""
        return len(set(self.instructions)) == 1


@dataclass(frozen=True)
class Emulator:
    """A core in a sandbox; `place` is how it was asked for, for errors."""

    place: str
    core: Core
    sandbox: Sandbox
    patience: float = PATIENCE

    def check_core(self) -> None:
        """Raise `PlaceError` if the QEMU that is installed does not know the core."""
        known = re.findall(r"^\s+([\w-]+)", self.ask_qemu("-cpu", "help"), re.MULTILINE)
        wanted = self.core.qemu.partition(",")[0]
        if wanted not in known:
            raise PlaceError(
                self.place, f"the QEMU here does not know {wanted}; it knows: {', '.join(known)}"
            )

    def ask_qemu(self, *question: str) -> str:
        """Return what QEMU prints; raises `PlaceError` if that is nothing or it cannot be run."""
        command = [self.sandbox.qemu, *question]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=_ANSWER
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise PlaceError(self.place, f"QEMU cannot be run: {error}") from error
        if not done.stdout:  # its exit code is 1 for some questions
            raise PlaceError(self.place, f"QEMU cannot be run: {done.stderr.strip()[:500]}")
        return done.stdout

    def run(self, program: Program, tensors: Mapping[str, NDArray[Any]], runs: int) -> Counted:
        """Run an artifact twice to settle, then `runs` times counted, all on the same inputs.

        Raises:
            TensorMismatch: an input has another shape or dtype than the artifact's.
            WrongArchitecture: the artifact's kernels use an instruction that the core lacks, or
                the runner is not for Arm.
            PlaceError: it crashed, took too long, or its output is not what a runner writes.
        """
        runner = self.sandbox.runner(program.engine)
        if not is_aarch64(runner):
            raise WrongArchitecture(self.place, f"{runner} is not a program for 64-bit Arm")
        for spec in program.inputs:
            spec.check(tensors[spec.name])
        try:
            with working_folder(self.sandbox.path.parent) as folder:
                for number, spec in enumerate(program.inputs):
                    tensors[spec.name].tofile(folder / f"in.{number}")
                finished = self._start(program, folder, runs)
                self._check_end(finished, program)
                return self._read(program, folder, runs)
        except OSError as error:
            raise PlaceError(
                self.place, f"{error.filename or 'the cache'}: {error.strerror or error}"
            ) from error

    def _start(self, program: Program, folder: Path, runs: int) -> Finished:
        root, sandbox = folder / "root", self.sandbox.path
        self.core.write_files(root)
        for name in ("lib", "opt"):
            (root / name).symlink_to(sandbox / "root" / name)
        # same names for everyone: a program's memory holds its arguments
        (folder / "model").symlink_to(program.path.absolute())
        (folder / "counts.so").symlink_to(self.sandbox.plugin)
        names = [[spec.name for spec in side] for side in (program.inputs, program.outputs)]
        command = [
            *(self.sandbox.qemu, "-seed", "1", "-cpu", self.core.qemu, "-L", "root"),
            *("-plugin", f"./counts.so,out=counts.txt,parent={os.getpid()}"),
            f"root/opt/{program.engine}",
            *("model", str(runs), *names[0], "--", *names[1]),
        ]
        try:
            return run_to_end(command, folder, {}, self.patience)
        except TimedOut as error:
            raise PlaceError(self.place, f"{program.path.name}: {error}") from error

    def _check_end(self, finished: Finished, program: Program) -> None:
        what = f"{program.path.name} with {program.engine}"
        if finished.code == -signal.SIGILL:
            raise WrongArchitecture(
                self.place, f"{what} uses an instruction that {self.core.name} does not have"
            )
        if finished.code < 0:
            name = signal.Signals(-finished.code).name
            raise PlaceError(self.place, f"{what} crashed ({name})")
        if finished.code > 0:
            lines = finished.errors.strip().splitlines()
            reason = lines[-1] if lines else f"exit code {finished.code}"
            raise PlaceError(self.place, f"{what} failed: {reason[:500]}")
        lines = finished.output.splitlines()
        if _READY not in lines or lines[-1] != _DONE:
            raise PlaceError(self.place, f"{what} printed something else than a runner does")

    def _read(self, program: Program, folder: Path, runs: int) -> Counted:
        lines = (folder / "counts.txt").read_text(encoding="ascii").splitlines()
        found = [parse_counts(self.place, line) for line in lines]
        if len(found) != runs:
            raise PlaceError(self.place, f"{len(found)} inferences were counted, not {runs}")
        outputs = {
            spec.name: self._answer(folder / f"out.{number}", spec)
            for number, spec in enumerate(program.outputs)
        }
        return Counted(tuple(sum(classes.values()) for classes in found), found[-1], outputs)

    def _answer(self, path: Path, spec: TensorSpec) -> NDArray[Any]:
        values = np.fromfile(path, dtype=spec.dtype)
        if values.size != np.prod(spec.shape, dtype=int):
            raise PlaceError(
                self.place,
                f"'{spec.name}' has {values.size} values where the manifest says {spec.shape}",
            )
        return values.reshape(spec.shape)


def parse_counts(place: str, line: str) -> dict[str, int]:
    """Read a line of the plugin's: instructions by class, without classes that have none.

    Raises:
        PlaceError: it is no such line, its classes do not add up, or another thread ran meanwhile.
    """
    match = _COUNTS.fullmatch(line)
    if match is None:
        raise PlaceError(place, f"no line of counts: {line[:200]!r}")
    words: Sequence[str] = match[3].split()
    classes = {name: int(n) for name, n in zip(words[::2], words[1::2], strict=True) if int(n)}
    if int(match[2]):
        raise PlaceError(place, f"other threads retired {match[2]} instructions meanwhile")
    if not classes or sum(classes.values()) != int(match[1]):
        raise PlaceError(place, f"the classes of {match[1]} instructions do not add up to them")
    return classes

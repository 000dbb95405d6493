"""Make the sandbox: engines for Arm from their wheels, our runners, and the plugin that counts.

Nothing of an Arm distribution is needed: the cross-compiler brings the C and C++ libraries.
"""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from phoneward.bundle import sha256_of
from phoneward.errors import PlaceError
from phoneward.profiles.measure.emulator.folders import working_folder
from phoneward.profiles.measure.emulator.processes import TimedOut, run_to_end
from phoneward.profiles.measure.emulator.sandbox import (
    ENGINES_IN_GUEST,
    PLUGIN,
    PREPARE,
    RECORD,
    Record,
    engine_versions,
    find_qemu,
    is_aarch64,
    read_whole,
    sandbox_folder,
    sources,
)

_PLACE = "qemu"
_CROSS = "aarch64-linux-gnu-g++"
_LIBRARIES = (
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "libstdc++.so.6",
    "libgcc_s.so.1",
)
# engines' libraries by their path in the wheel
_LITERT = ("ai_edge_litert/libLiteRt.so",)
_EXECUTORCH = tuple(
    f"executorch/lib/libexecutorch{part}.so"
    for part in (
        "",
        "_kernels_optimized",
        "_kernels_quantized",
        "_backend_xnnpack",
        "_threadpool",
    )
)
_WHEEL_TARGET = (
    *("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"),
    *("--platform", "manylinux_2_27_aarch64", "--platform", "manylinux_2_28_aarch64"),
)
_PATIENCE = 900.0  # seconds for a download or a compilation


def prepare(progress: Callable[[str], None]) -> Path:
    """Make the sandbox unless it is there; returns its folder.

    Downloads two wheels (32 MB) with pip as it is configured, compiles three files and keeps
    about 30 MB. A damaged sandbox is replaced. Leaves nothing behind if it fails.

    Raises:
        PlaceError: QEMU or a compiler is not installed, a download or a compilation failed, or
            the cache cannot be written.
    """
    find_qemu(_PLACE)
    folder = sandbox_folder()
    if folder.exists() and read_whole(folder) is not None:
        return folder
    host, cross = _compilers()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with working_folder(folder.parent) as staging:
            _Workshop(host, cross, staging, progress).make()
            shutil.rmtree(folder, ignore_errors=True)
            staging.rename(folder)
    except OSError as error:
        raise PlaceError(
            _PLACE, f"cannot write {error.filename or folder}: {error.strerror or error}"
        ) from error
    return folder


def _compilers() -> tuple[str, str]:
    """Paths of the C compiler for this machine and of the C++ compiler for Arm."""
    host = shutil.which("cc") or shutil.which("gcc")
    cross = shutil.which(_CROSS)
    if host is None or cross is None:
        lacking = "a C compiler" if host is None else _CROSS
        package = "gcc libc6-dev" if host is None else "g++-aarch64-linux-gnu"
        raise PlaceError(
            _PLACE, f"{lacking} is not installed; on Debian: apt-get install {package}"
        )
    return host, cross


@dataclass(frozen=True)
class _Workshop:
    host: str
    cross: str
    staging: Path
    progress: Callable[[str], None]

    @property
    def _engines(self) -> Path:
        return self.staging / "root" / ENGINES_IN_GUEST[1:]

    @property
    def _build(self) -> Path:
        return self.staging / "build"

    def make(self) -> None:
        for path in (self._engines, self._build, self.staging / "root/lib"):
            path.mkdir(parents=True)
        for name, version in engine_versions().items():
            self.progress(f"downloading {name} {version} for Arm")
            self._download(f"{name}=={version}")
        self._copy_libraries()
        code = {file.name: file for file in sources()}
        self.progress("compiling the plugin")
        self._compile_plugin(code["counts.c"])
        self.progress("compiling the runner of LiteRT")
        self._compile_litert(code["litert.c"])
        self.progress("compiling the runner of ExecuTorch")
        self._compile_executorch(code["executorch.cpp"])
        tools = self._tools()
        shutil.rmtree(self._build)
        self._write_record(tools)

    def _copy_libraries(self) -> None:
        for library in (*_LITERT, *_EXECUTORCH):
            shutil.copyfile(self._build / "site" / library, self._engines / Path(library).name)
        for name in _LIBRARIES:
            found = self._run([self.cross, f"-print-file-name={name}"], "find libraries")
            shutil.copyfile(found.strip(), self.staging / "root/lib" / name)

    def _compile_plugin(self, code: Path) -> None:
        options = ["-std=gnu11", "-O2", "-shared", "-fPIC", "-fvisibility=hidden"]
        command = [self.host, *options, str(code), "-o", str(self.staging / PLUGIN)]
        self._run(command, "compile the plugin")

    def _compile_litert(self, code: Path) -> None:
        self._link("litert", ["-x", "c", "-std=gnu11", "-O2", str(code), "-x", "none"], _LITERT)

    def _compile_executorch(self, code: Path) -> None:
        include = self._build / "site/executorch/include"
        options = [
            *("-std=c++20", "-O1", "-w", str(code)),
            *("-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_USE_THREADPOOL"),
            *("-I", str(include)),
            *("-I", str(include / "executorch/runtime/core/portable_type/c10")),
        ]
        self._link("executorch", options, _EXECUTORCH)

    def _link(self, engine: str, options: Sequence[str], libraries: Sequence[str]) -> None:
        files = [str(self._engines / Path(library).name) for library in libraries]
        runner = self._engines / engine
        # kernels and delegates register themselves: nothing refers to their libraries
        link = ["-Wl,--no-as-needed", *files, f"-Wl,-rpath,{ENGINES_IN_GUEST}", "-o", str(runner)]
        self._run([self.cross, *options, *link], f"compile the runner of {engine}")
        if not is_aarch64(runner):
            raise PlaceError(_PLACE, f"{self.cross} does not compile for 64-bit Arm")

    def _download(self, requirement: str) -> None:
        wheels = self._build / requirement
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        options = ["--no-deps", "--only-binary=:all:", *_WHEEL_TARGET, "--dest", str(wheels)]
        self._run([*pip, *options, requirement], f"download {requirement}")
        try:
            for wheel in wheels.glob("*.whl"):
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(self._build / "site")
        except zipfile.BadZipFile as error:
            raise PlaceError(_PLACE, f"{requirement} is not a whole wheel: {error}") from error

    def _tools(self) -> dict[str, str]:
        version = self._run([self.cross, "-dumpfullversion"], "ask a compiler").strip()
        return {**engine_versions(), _CROSS: version}

    def _write_record(self, tools: dict[str, str]) -> None:
        files = sorted(path for path in self.staging.rglob("*") if path.is_file())
        sums = {file.relative_to(self.staging).as_posix(): sha256_of(file) for file in files}
        record = Record(files=sums, tools=tools)
        text = record.model_dump_json(indent=1) + "\n"
        (self.staging / RECORD).write_text(text, encoding="utf-8")

    def _run(self, command: Sequence[str], what: str) -> str:
        """Run a tool, which may keep temporary files; returns its standard output."""
        environment = {**os.environ, "LC_ALL": "C", "TMPDIR": str(self._build)}
        try:
            done = run_to_end(command, self._build, environment, _PATIENCE)
        except TimedOut as error:
            raise PlaceError(_PLACE, f"could not {what}: {error}") from error
        if done.code != 0:
            lines = done.errors.strip().splitlines() or [f"exit code {done.code}"]
            reason = next((line for line in lines if "error" in line.lower()), lines[-1])
            raise PlaceError(_PLACE, f"could not {what}: {reason.strip()} (try again: {PREPARE})")
        return done.output

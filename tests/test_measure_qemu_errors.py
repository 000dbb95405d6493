"""What goes wrong in emulation: each with its error, and nothing left lying or running."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phoneward.bundle import Bundle
from phoneward.errors import (
    ArtifactChanged,
    BundleError,
    PlaceError,
    UnknownName,
    WrongArchitecture,
)
from phoneward.profiles.measure import Request
from phoneward.profiles.measure.emulator.folders import remove_leftovers, working_folder
from phoneward.profiles.measure.emulator.guest import parse_counts
from phoneward.profiles.measure.emulator.prepare import prepare
from phoneward.profiles.measure.qemu import profile
from phoneward.runtime.artifacts import Wanted
from tests.conftest import STAGE, artifact, write_manifest
from tests.qemu_emulator import (
    compile_runner,
    copied_sandbox,
    emulator,
    needs_emulator,
    own_cache,
    some_program,
)

_HEAD = "#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\nint main(void) { "


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of the test's own, in which nothing but the sandbox is left at the end."""
    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path / "cache"))
    folder = own_cache(tmp_path / "cache")
    yield folder
    assert len(list(folder.iterdir())) == 1


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A whole bundle whose one artifact nobody gets to open."""
    folder = tmp_path_factory.mktemp("bundle")
    for name in ("classify.tflite", "labels.txt", "reference.npz"):
        (folder / name).write_bytes(name.encode())
    write_manifest(folder, [artifact(folder / "classify.tflite", "tflite", STAGE)])
    return Bundle.open(folder)


def silent(step: str) -> None:
    pass


def only(monkeypatch: pytest.MonkeyPatch, folder: Path, *tools: str) -> None:
    """Leave only some tools to be found."""
    folder.mkdir()
    for tool in tools:
        (folder / tool).symlink_to(shutil.which(tool) or "/nowhere")
    monkeypatch.setenv("PATH", str(folder))


def running_below(folder: Path) -> list[str]:
    """Command lines of processes that work in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder) in str((process / "cwd").readlink()):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_without_qemu_the_package_is_named(
    bundle: Bundle, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, tmp_path / "bin")
    with pytest.raises(PlaceError, match="apt-get install qemu-user"):
        profile("cortex-a76", Request(bundle), silent)
    assert not empty_cache.exists()


def test_an_unknown_core_is_answered_with_the_known_ones(bundle: Bundle) -> None:
    with pytest.raises(UnknownName, match="'cortex-a77'; known: cortex-a53, .*max"):
        profile("cortex-a77", Request(bundle), silent)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"threads": 2}, "one thread"),
        ({"runner": Path("executor_runner")}, "leave out the runner"),
        ({"wanted": Wanted(engine="onnxruntime")}, "runs litert, executorch, not onnxruntime"),
    ],
)
def test_what_emulation_cannot_do_is_refused(
    bundle: Bundle, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(PlaceError, match=reason):
        profile("cortex-a76", replace(Request(bundle), **changes), silent)  # type: ignore[arg-type]


@needs_emulator
def test_unprepared_it_says_how_and_downloads_nothing(bundle: Bundle, empty_cache: Path) -> None:
    with pytest.raises(PlaceError, match="run: phoneward doctor --emulator"):
        profile("cortex-a76", Request(bundle), silent)
    assert not empty_cache.exists()


@needs_emulator
def test_a_core_that_this_qemu_lacks_is_answered_with_those_it_has(
    bundle: Bundle, cache: Path
) -> None:
    core = replace(emulator("cortex-a76").core, qemu="cortex-a9000,fast=on")
    with pytest.raises(PlaceError, match="does not know cortex-a9000; it knows: .*cortex-a76"):
        replace(emulator("cortex-a76"), core=core).check_core()


@needs_emulator
def test_a_qemu_that_is_none(cache: Path) -> None:
    broken = replace(emulator("cortex-a76").sandbox, qemu="/bin/false")
    with pytest.raises(PlaceError, match="QEMU cannot be run"):
        emulator("cortex-a76", broken).check_core()


@needs_emulator
def test_a_damaged_sandbox_is_noticed_and_not_run(bundle: Bundle, cache: Path) -> None:
    sandbox = copied_sandbox(cache)
    with sandbox.plugin.open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(PlaceError, match=r"is damaged; run: phoneward doctor --emulator"):
        profile("cortex-a76", Request(bundle), silent)


@needs_emulator
def test_a_bundle_without_a_fitting_artifact(bundle: Bundle, cache: Path) -> None:
    with pytest.raises(BundleError, match="runs executorch, tflite; it has: tflite-fp32"):
        profile("cortex-a76", Request(bundle, Wanted(format_name="onnx")), silent)


@needs_emulator
def test_a_changed_artifact_is_not_run(cache: Path, bundle: Bundle, tmp_path: Path) -> None:
    changed = tmp_path / "bundle"
    shutil.copytree(bundle.path, changed)
    np.savez(changed / "reference.npz", **{"classify/real": np.ones(1, dtype=bool)})
    write_manifest(changed, bundle.manifest.artifacts)
    (changed / "classify.tflite").write_bytes(b"something else")
    with pytest.raises(ArtifactChanged, match=r"classify\.tflite"):
        profile("cortex-a76", Request(Bundle.open(changed)), silent)


@needs_emulator
def test_a_model_that_the_engine_refuses(cache: Path, tmp_path: Path) -> None:
    program, tensors = some_program(tmp_path)
    with pytest.raises(PlaceError, match="with litert failed: the model's file"):
        emulator("cortex-a76").run(program, tensors, 1)


@needs_emulator
@pytest.mark.parametrize(
    ("code", "error", "reason"),
    [
        ('puts("hello"); return 0; }', PlaceError, "printed something else"),
        ('puts("phoneward runner 1"); puts("done"); return 0; }', PlaceError, "0 inferences"),
        ('fputs("no\\nmemory left\\n", stderr); return 7; }', PlaceError, "failed: memory left"),
        ("*(volatile int *)8 = 1; }", PlaceError, r"crashed \(SIGSEGV\)"),
        ("abort(); }", PlaceError, r"crashed \(SIGABRT\)"),
        # half-precision arithmetic: Armv8.2
        (
            '__asm__("fmla v0.8h, v1.8h, v2.8h"); return 0; }',
            WrongArchitecture,
            "an instruction that cortex-a53 does not have",
        ),
    ],
)
def test_runners_that_end_badly(
    cache: Path, tmp_path: Path, code: str, error: type[PlaceError], reason: str
) -> None:
    sandbox = copied_sandbox(cache)
    compile_runner(sandbox, _HEAD + code, tmp_path)
    program, tensors = some_program(tmp_path)
    with pytest.raises(error, match=reason) as caught:
        emulator("cortex-a53", sandbox).run(program, tensors, 1)
    assert type(caught.value) is error


@needs_emulator
def test_a_runner_for_another_processor(cache: Path, tmp_path: Path) -> None:
    sandbox = copied_sandbox(cache)
    shutil.copyfile("/bin/true", sandbox.runner("litert"))
    program, tensors = some_program(tmp_path)
    with pytest.raises(WrongArchitecture, match="not a program for 64-bit Arm"):
        emulator("cortex-a76", sandbox).run(program, tensors, 1)


@needs_emulator
def test_one_that_never_ends_is_ended_with_its_children(cache: Path, tmp_path: Path) -> None:
    sandbox = copied_sandbox(cache)
    compile_runner(sandbox, _HEAD + "fork(); for (;;) sleep(1); }", tmp_path)
    program, tensors = some_program(tmp_path)
    begin = time.monotonic()
    with pytest.raises(PlaceError, match="not done in 2 s"):
        emulator("cortex-a76", sandbox, patience=2).run(program, tensors, 1)
    assert time.monotonic() - begin < 20
    assert not running_below(cache)


@needs_emulator
def test_a_killed_profiler_leaves_no_emulator_and_the_next_one_cleans_up(
    cache: Path, tmp_path: Path
) -> None:
    sandbox = copied_sandbox(cache)
    compile_runner(sandbox, _HEAD + "for (;;) sleep(1); }", tmp_path)
    code = f"""
from pathlib import Path
from tests.qemu_emulator import emulator, some_program
from phoneward.profiles.measure.emulator.sandbox import Sandbox, Record
sandbox = Sandbox(Path({str(sandbox.path)!r}), Record(files={{}}, tools={{}}), {sandbox.qemu!r})
emulator("cortex-a76", sandbox).run(*some_program(Path({str(tmp_path)!r})), 1)
"""
    root = Path(__file__).parent.parent
    profiler = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    _wait_until(lambda: any("counts.so" in line for line in running_below(cache)))
    profiler.kill()
    profiler.wait()
    _wait_until(lambda: not running_below(cache))
    (left,) = cache.glob(".work-*")
    remove_leftovers(cache)
    assert left.exists()
    os.utime(left, (0, 0))
    with working_folder(cache) as other:
        os.utime(other, (0, 0))
        remove_leftovers(cache)
        assert other.exists()
        assert not left.exists()


@needs_emulator
def test_an_emulator_whose_parent_is_gone_before_it_could_notice_does_not_run(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = copied_sandbox(cache)
    compile_runner(sandbox, _HEAD + "for (;;) sleep(1); }", tmp_path)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(PlaceError, match="Could not load plugin"):
        emulator("cortex-a76", sandbox).run(*some_program(tmp_path), 1)


def _wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


@needs_emulator
def test_a_full_disk(cache: Path, tmp_path: Path) -> None:
    program, tensors = some_program(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))
    try:
        with pytest.raises(PlaceError, match=r"qemu:cortex-a76: "):
            emulator("cortex-a76").run(program, tensors, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@needs_emulator
def test_preparing_without_a_compiler_names_its_package(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, tmp_path / "bin", "qemu-aarch64", "cc")
    with pytest.raises(PlaceError, match="apt-get install g\\+\\+-aarch64-linux-gnu"):
        prepare(silent)
    assert not empty_cache.exists()


@needs_emulator
def test_preparing_without_the_wheels_leaves_nothing(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(PlaceError, match="could not download ai-edge-litert==.*doctor --emulator"):
        prepare(silent)
    assert not list((empty_cache / "qemu").iterdir())


@needs_emulator
def test_preparing_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path / "file"))
    with pytest.raises(PlaceError, match="cannot write .*file"):
        prepare(silent)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("inference 3 strangers 0 fmla 2 load 2", "do not add up"),
        ("inference 0 strangers 0 fmla 0", "do not add up"),
        ("inference 3 strangers 4 fmla 2 load 1", "other threads retired 4"),
        ("inference 3 strangers 0", "no line of counts"),
        ("inference 3 strangers 0 fmla", "no line of counts"),
        ("", "no line of counts"),
    ],
)
def test_lines_that_are_no_counts(line: str, reason: str) -> None:
    with pytest.raises(PlaceError, match=reason):
        parse_counts("qemu:max", line)


def test_a_line_of_counts() -> None:
    line = "inference 3 strangers 0 fmla 2 bf16 0 load 1"
    assert parse_counts("qemu:max", line) == {"fmla": 2, "load": 1}

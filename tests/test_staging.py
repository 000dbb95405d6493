"""Output is whole or absent, and replaces nothing but bundles."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from phoneward.bundle import MANIFEST
from phoneward.errors import NotABundle, OutputError, OutputExists
from phoneward.staging import staged_output


def test_output_appears_whole(tmp_path: Path) -> None:
    with staged_output(tmp_path / "deep" / "out") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "x").read_text() == "1"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), staged_output(tmp_path / "out") as folder:
        (folder / "x").write_text("1")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="No space left on device"),
        staged_output(tmp_path / "out"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


OLD = '{"schema_version": 1, "artifacts": ["old"]}'


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return a folder that passes for an old bundle, alone in its folder."""
    folder = tmp_path / "place" / "out"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(OLD)
    return folder


def test_an_existing_bundle_needs_force(out: Path) -> None:
    with pytest.raises(OutputExists, match="--force"), staged_output(out):
        pass
    with pytest.raises(ValueError, match="stop"), staged_output(out, force=True):
        raise ValueError("stop")
    assert (out / MANIFEST).exists(), "a failed replacement keeps the old folder"
    with staged_output(out, force=True) as folder:
        (folder / "new").write_text("")
    assert [p.name for p in out.iterdir()] == ["new"]
    assert list(out.parent.iterdir()) == [out]


def test_force_takes_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with staged_output(tmp_path / "out", force=True) as folder:
        (folder / "new").write_text("")
    assert (tmp_path / "out" / "new").exists()


@pytest.mark.parametrize("kind", ["folder", "other program", "file", "broken link"])
def test_force_replaces_nothing_but_bundles(tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "precious"
    if kind in ("folder", "other program"):
        precious.mkdir()
        (precious / "photo.jpg").write_text("precious")
        if kind == "other program":
            (precious / MANIFEST).write_text('{"entry": "src/main.js"}')
    elif kind == "file":
        precious.write_text("precious")
    else:
        precious.symlink_to("nowhere")
    ran = False
    with pytest.raises(NotABundle) as caught, staged_output(precious, force=True):
        ran = True
    assert not ran, "refused before the work"
    assert str(caught.value).startswith(f"{precious} is not a bundle")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, OutputExists)
    assert list(tmp_path.iterdir()) == [precious]
    assert not precious.is_dir() or (precious / "photo.jpg").read_text() == "precious"


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("content", ["photo.jpg", MANIFEST])
def test_what_appears_meanwhile_is_kept(tmp_path: Path, content: str, force: bool) -> None:
    out = tmp_path / "out"

    def work() -> None:
        with staged_output(out, force=force) as folder:
            (folder / "new").write_text("")
            out.mkdir()
            (out / content).write_text(OLD)

    if force and content == MANIFEST:
        work()
        assert [p.name for p in out.iterdir()] == ["new"]
    else:
        with pytest.raises(OutputExists):
            work()
        assert [p.name for p in out.iterdir()] == [content]
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_replacement_that_fails_puts_the_old_bundle_back(
    out: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    rename, calls = Path.rename, []

    def fails_once(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    with (
        pytest.raises(OutputError, match="Input/output error"),
        staged_output(out, force=True) as folder,
    ):
        (folder / "new").write_text("")
        monkeypatch.setattr(Path, "rename", fails_once)
    assert len(calls) == 2 * failing - 1, "the second failure needs a rename back"
    assert (out / MANIFEST).read_text() == OLD
    assert list(out.parent.iterdir()) == [out]


def test_an_old_bundle_that_cannot_be_put_back_is_kept_and_named(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, calls = Path.rename, []

    def works_once(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) > 1:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    with (
        pytest.raises(OutputError, match="it is kept as") as caught,
        staged_output(out, force=True),
    ):
        monkeypatch.setattr(Path, "rename", works_once)
    assert str(caught.value).endswith(str(calls[0]))
    assert (calls[0] / MANIFEST).read_text() == OLD


def test_a_foreign_file_between_the_renames_costs_neither(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, calls = Path.rename, []

    def meanwhile(self: Path, target: Path) -> Path:
        calls.append(target)
        result = rename(self, target)
        if len(calls) == 1:
            out.write_text("somebody's")
        return result

    with pytest.raises(OutputError, match="it is kept as"), staged_output(out, force=True):
        monkeypatch.setattr(Path, "rename", meanwhile)
    assert out.read_text() == "somebody's"
    assert (calls[0] / MANIFEST).read_text() == OLD


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from phoneward.apps.cli.interrupt import leave_nothing_behind
from phoneward.staging import staged_output

out, number, when = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rename, calls = Path.rename, []

def interrupted(self, target):
    calls.append(self)
    if when == "before" and len(calls) == 2:
        os.kill(os.getpid(), number)
    result = rename(self, target)
    if when == "after" and len(calls) == 2:
        os.kill(os.getpid(), number)
    return result

leave_nothing_behind()
with staged_output(out, force=True) as folder:
    (folder / "bundle.json").write_text("new")
    Path.rename = interrupted
print("not interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("when", "left"), [("before", OLD), ("after", "new")])
def test_an_interrupt_between_the_renames_leaves_one_whole_bundle(
    out: Path, number: signal.Signals, when: str, left: str
) -> None:
    script = [sys.executable, "-c", INTERRUPTED, str(out), str(int(number)), when]
    result = subprocess.run(script, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    said = "interrupted; nothing was written" if when == "before" else "interrupted"
    assert result.stderr == f"error: {said}\n"
    assert (out / MANIFEST).read_text() == left
    assert list(out.parent.iterdir()) == [out]

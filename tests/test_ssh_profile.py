"""A bundle profiled on a board: what is sent, set up there, brought back and left behind."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

import phoneward
from phoneward.bundle import Bundle
from phoneward.errors import (
    ArtifactChanged,
    BundleError,
    PlaceError,
    PlaceUnreachable,
    WrongArchitecture,
)
from phoneward.profiles.measure import PLACES, Request, Setup
from phoneward.profiles.measure.board import wheel
from phoneward.runtime.artifacts import Wanted
from tests.ssh_board import TFLITE, Board, acting, profile, sshd, user_of

HERE = Setup(python=sys.executable, bootstrap=False)


def test_a_report_comes_back_from_a_board(board: Board, bundle: Bundle) -> None:
    listing = board.folder / "listing"
    python = board.program(
        "spy",
        f'case "$*" in *board.worker*) find . -type f > {listing};; esac\n'
        f'exec {sys.executable} "$@"',
    )
    request = Request(
        bundle,
        TFLITE,
        runs=5,
        cold_starts=1,
        op_times=False,
        setup=replace(HERE, python=str(python)),
    )
    steps: list[str] = []
    report = PLACES.get("ssh")(board.address, request, steps.append)
    assert report.place == f"ssh://{board.address}"
    assert report.machine.architecture == os.uname().machine
    assert abs((datetime.now(timezone.utc) - report.created).total_seconds()) < 60
    (stage,) = report.stages
    (sent,) = (a for a in bundle.manifest.artifacts if a.format == "tflite")
    assert (stage.artifact_sha256, stage.engine) == (sent.sha256, "litert")
    assert stage.result.provenance == "measured"
    assert len(stage.result.samples_ns) == 5
    assert any("process 1 of" in step for step in steps)
    assert sorted(listing.read_text().split()) == [
        "./bundle/bundle.json",
        f"./bundle/{sent.path}",
        "./bundle/labels.txt",
        "./bundle/reference.npz",
        "./job.json",
    ]
    assert not list(board.cache.iterdir())


def test_a_real_engine_that_fails_there_is_told(board: Board, unread: Bundle) -> None:
    request = Request(unread, TFLITE, runs=5, cold_starts=0, op_times=False, setup=HERE)
    with pytest.raises(PlaceError, match=r"ssh://.*reference|ssh://.*cannot be"):
        profile(board, request)


def test_the_bundle_is_checked_before_anything_is_asked_of_a_board(unread: Bundle) -> None:
    ask = PLACES.get("ssh")
    with pytest.raises(BundleError, match=r"which runs executorch, onnx, tflite; it has: "):
        ask(
            "nobody@board.invalid", Request(unread, Wanted(format_name="coreml")), lambda step: None
        )
    with pytest.raises(BundleError, match="no stage 'encode'"):
        ask("nobody@board.invalid", Request(unread, stages=("encode",)), lambda step: None)
    unread.file(unread.manifest.artifacts[0]).write_bytes(b"changed")
    with pytest.raises(ArtifactChanged):
        ask("nobody@board.invalid", Request(unread), lambda step: None)


def test_the_board_has_to_be_the_device_that_is_named(board: Board, unread: Bundle) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("this machine may be of the device's architecture")
    request = Request(unread, TFLITE, device="raspberry-pi-5", setup=HERE)
    with pytest.raises(WrongArchitecture, match="x86_64; raspberry-pi-5 is Armv8"):
        profile(board, request)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("exit 1", "not installed there; run there: .*odd -m pip install 'phoneward"),
        (
            'echo "installed {\\"version\\": \\"9.9\\", \\"lacks\\": {}}"',
            f"has Phoneward 9.9, here it is {phoneward.__version__}",
        ),
        (
            f'echo "installed {{\\"version\\": \\"{phoneward.__version__}\\", '
            '\\"lacks\\": {\\"litert\\": \\"absent\\"}}"',
            r"no engine there .*litert: absent.*phoneward\[litert\]",
        ),
    ],
)
def test_without_bootstrap_it_says_what_to_install(
    board: Board, unread: Bundle, said: str, words: str
) -> None:
    python = board.program(
        "odd", f'case "$*" in *why_not*) {said}; exit 0;; esac\nexec {sys.executable} "$@"'
    )
    request = Request(unread, TFLITE, setup=Setup(python=str(python), bootstrap=False))
    with pytest.raises(PlaceError, match=words):
        profile(board, request)
    assert not list(board.cache.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [("size=1m", "MB are needed"), ("size=64m,nr_inodes=4", "no space left in")],
)
def test_no_room_on_the_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unread: Bundle, options: str, words: str
) -> None:
    folder = tmp_path / "small"
    (folder / "tmp").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder / "tmp")]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with sshd(folder) as small:
            user_of(small, monkeypatch)
            with pytest.raises(PlaceError, match=words):
                profile(small, Request(unread, TFLITE, setup=HERE))
            small.wait_until_clean()
    finally:
        subprocess.run(["umount", "-l", str(folder / "tmp")], check=True)


def running(board: Board) -> bool:
    return bool(list(board.tmp.glob("*/running")))


def test_a_board_gone_in_the_middle_leaves_no_report(
    board: Board, unread: Bundle, tmp_path: Path
) -> None:
    setup = acting(board, "touch running; sleep 100")
    process = command(board, unread, setup, tmp_path / "report.json")
    while not running(board):
        time.sleep(0.02)
    for pid in board.connections():
        os.kill(pid, signal.SIGKILL)
    output, error = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "went away in the middle" in error
    assert "went away" in json.loads(output)["error"]
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.matrix),
        pytest.param(signal.SIGKILL, marks=pytest.mark.matrix),
    ],
)
def test_an_interrupted_command_leaves_nothing_anywhere(
    board: Board, unread: Bundle, tmp_path: Path, number: int
) -> None:
    setup = acting(board, "touch running; sleep 100")
    process = command(board, unread, setup, tmp_path / "report.json")
    while not running(board):
        time.sleep(0.02)
    clients = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert clients
    process.send_signal(number)
    process.communicate(timeout=30)
    board.wait_until_clean()
    assert not (tmp_path / "report.json").exists()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in clients):
        assert time.monotonic() < deadline, "an ssh is left"
        time.sleep(0.05)


def command(board: Board, bundle: Bundle, setup: Setup, output: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "phoneward", "profile", str(bundle.path), "--json"]
    arguments += ["--on", f"ssh://{board.address}", "--format", "tflite", "-o", str(output)]
    arguments += ["--python", setup.python, "--no-bootstrap"]
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_the_packed_wheel_is_a_wheel(tmp_path: Path) -> None:
    packed = wheel.pack()
    assert packed == wheel.pack()
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        names = archive.namelist()
        (record,) = (name for name in names if name.endswith(".dist-info/RECORD"))
        rows = list(csv.reader(archive.read(record).decode().splitlines()))
        assert sorted(row[0] for row in rows) == sorted(names)
        for name, digest, size in rows:
            if name != record:
                content = archive.read(name)
                assert len(content) == int(size)
                told = base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "=")
                assert told == hashlib.sha256(content).digest()
        assert not any("__pycache__" in name for name in names)
        archive.extractall(tmp_path)
    asked = "import phoneward, sys; print(phoneward.__version__, phoneward.__path__)"
    found = subprocess.run(
        [sys.executable, "-c", asked],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(tmp_path) in found.stdout


@pytest.mark.matrix
def test_a_board_without_phoneward_is_given_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    """A plain Python with what Phoneward depends on, and no network."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(numpy_home()).iterdir():
        if "phoneward" not in entry.name.lower() and entry.suffix != ".pth":
            (packages / entry.name).symlink_to(entry)
    python = Path(sys.base_prefix, "bin", "python3")
    environment = {"PYTHONPATH": str(packages), "PIP_NO_INDEX": "1", "PYTHONNOUSERSITE": "1"}
    with sshd(tmp_path / "board", environment) as board:
        user_of(board, monkeypatch)
        request = Request(bundle, TFLITE, runs=5, cold_starts=0, op_times=False)
        request = replace(request, setup=Setup(python=str(python)))
        steps: list[str] = []
        report = PLACES.get("ssh")(board.address, request, steps.append)
        assert report.stages[0].engine == "litert"
        assert any("setting up" in step for step in steps)
        (made,) = (board.cache / "phoneward" / "environments").iterdir()
        assert "litert" in made.name
        board.wait_until_clean()
        # the second time it is there already
        steps.clear()
        profile(board, request)
        assert not any("setting up" in step for step in steps)
        # without what it depends on and without a network, it is clear what to do
        (packages / "ai_edge_litert").unlink()
        for info in packages.glob("ai_edge_litert*"):
            info.unlink()
        shutil.rmtree(made)
        with pytest.raises(PlaceError, match="pip there failed .*--wheelhouse FOLDER"):
            profile(board, request)
        board.wait_until_clean()
        assert not list((board.cache / "phoneward" / "environments").iterdir())
        with pytest.raises(PlaceError, match="has no wheels"):
            setup = Setup(python=str(python), wheelhouse=tmp_path)
            profile(board, replace(request, setup=setup))


def numpy_home() -> str:
    import numpy as np

    return str(Path(np.__file__).parent.parent)


def test_an_interrupted_setup_leaves_no_environment(board: Board, unread: Bundle) -> None:
    script = (
        'case "$*" in *why_not*) exit 1;; *venv*) '
        'for last; do :; done; mkdir -p "$last/bin"; kill -9 $PPID; sleep 100;; esac\n'
        f'exec {sys.executable} "$@"'
    )
    python = board.program("odd", script)
    with pytest.raises(PlaceUnreachable):
        profile(board, Request(unread, TFLITE, setup=Setup(python=str(python))))
    board.wait_until_clean()
    assert not list(board.cache.rglob("*.part"))

"""A board for tests: a real OpenSSH server on loopback, with folders and programs of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

import pytest

from phoneward import __version__
from phoneward.bundle import Bundle
from phoneward.profiles.measure import PLACES, Request, Setup
from phoneward.profiles.report.schema import LatencyReport
from phoneward.runtime.artifacts import Wanted
from tests.conftest import STAGE, artifact, write_manifest

TFLITE = Wanted(format_name="tflite")
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass
class Board:
    """A running sshd.

    `tmp` is its TMPDIR, `cache` its XDG_CACHE_HOME, `programs` comes first in its PATH.
    """

    folder: Path
    port: int
    server: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"{getuser()}@127.0.0.1:{self.port}"

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def programs(self) -> Path:
        return self.folder / "programs"

    def program(self, name: str, script: str) -> Path:
        """Put a shell script where the board finds it first."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def processes(self) -> list[int]:
        """Everything that was started through this server and still runs."""
        marked = f"PHONEWARD_BOARD={self.port}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environment = (entry / "environ").read_bytes().split(b"\0")
                    state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
                except OSError:
                    continue
                if marked in environment and state != b"Z":
                    found.append(int(entry.name))
        return found

    def wait_until_clean(self, seconds: float = 15) -> None:
        """Nothing runs and nothing lies there, at the latest after some time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.processes() and not list(self.tmp.iterdir()):
                return
            time.sleep(0.05)
        raise AssertionError((self.processes(), list(self.tmp.iterdir())))

    def connections(self) -> list[int]:
        """The server's own processes for its connections, outermost first."""
        found, parents = [], {self.server.pid}
        for entry in sorted(int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()):
            try:
                fields = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
                name = Path(f"/proc/{entry}/comm").read_text().strip()
            except OSError:
                continue
            if int(fields[1]) in parents and name.startswith("sshd"):
                parents.add(entry)
                found.append(entry)
        return found


@contextmanager
def sshd(
    folder: Path, environment: Mapping[str, str] | None = None, forced: str | None = None
) -> Iterator[Board]:
    """Run a server that knows the key `folder/id`; its host key is made anew if absent.

    `forced` is a command that it runs whatever is asked for.
    """
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("openssh-server and openssh-client are not installed")
    for name in ("tmp", "cache", "programs"):
        (folder / name).mkdir(exist_ok=True, parents=True)
    for key in ("id", "host"):
        if not (folder / key).exists():
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(make, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        "TMPDIR": str(folder / "tmp"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PHONEWARD_BOARD": str(port),
        "OMP_NUM_THREADS": "1",
        **(environment or {}),
    }
    path = f"{folder / 'programs'}:{Path(sys.executable).parent}:/usr/bin:/bin"
    # the account's own startup files may set PATH; this comes after them
    command = forced or f'exec env PATH={path} sh -c "$SSH_ORIGINAL_COMMAND"'
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {folder / 'id.pub'}\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\n"
        f"ForceCommand {command}\n"
        f"SetEnv {' '.join(f'{name}={value}' for name, value in variables.items())}\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server_command = [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "sshd.log").open("ab") as log:
        server = subprocess.Popen(server_command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait_for(port, server, folder / "sshd.log")
        yield Board(folder, port, server)
    finally:
        for pid in Board(folder, port, server).connections():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        server.kill()
        server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if server.poll() is not None:
                pytest.skip(f"sshd does not start here: {log.read_text()[-300:]}")
            time.sleep(0.05)
        else:
            return
    raise AssertionError("sshd does not listen")


def user_of(board: Board, patch: pytest.MonkeyPatch, *, known: bool = True) -> None:
    """Be a user whose OpenSSH configuration has the board's key and, if `known`, its host key."""
    home = board.folder / "user"
    home.mkdir(exist_ok=True)
    known_hosts = home / "known_hosts"
    if known and not known_hosts.exists():
        key = (board.folder / "host.pub").read_text()
        known_hosts.write_text(f"[127.0.0.1]:{board.port} {key}")
    (home / "config").write_text(
        f"IdentityFile {board.folder / 'id'}\nIdentitiesOnly yes\nIdentityAgent none\n"
        f"UserKnownHostsFile {known_hosts}\nGlobalKnownHostsFile none\n"
    )
    # ssh takes the home folder from the account, not from HOME
    ssh = home / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {home / "config"} "$@"\n')
    ssh.chmod(0o755)
    patch.setenv("PATH", f"{home}:{os.environ['PATH']}")


def unread_bundle(folder: Path) -> Bundle:
    """A bundle that no engine is ever asked to read."""
    folder.mkdir()
    (folder / "labels.txt").write_text("thing\n")
    (folder / "reference.npz").write_bytes(b"reference")
    made = []
    for name, suffix in (("tflite", ".tflite"), ("onnx", ".onnx"), ("coreml", ".mlpackage")):
        path = folder / f"classify{suffix}"
        path.write_bytes(name.encode() * 100)
        made.append(artifact(path, name, STAGE))
    write_manifest(folder, made)
    return Bundle.open(folder)


def acting(board: Board, script: str) -> Setup:
    """A Python there that is real, says that all is installed, and whose worker is a script."""
    (board.folder / "installed").write_text(
        "installed " + json.dumps({"version": __version__, "lacks": {"litert": None}}) + "\n"
    )
    python = board.program(
        "odd",
        f'case "$*" in *why_not*) cat {board.folder / "installed"}; exit 0;; '
        f'*board.worker\\ *) {script}; exit $?;; esac\nexec {sys.executable} "$@"',
    )
    return Setup(python=str(python), bootstrap=False)


def profile(board: Board, request: Request) -> LatencyReport:
    """Profile on the board."""
    return PLACES.get("ssh")(board.address, request, lambda step: None)

"""What runs on the board: it holds a folder there for as long as somebody asks for it.

The source of this file is sent through the connection and executed by the board's Python (3.8 or
newer, standard library alone). Two processes watch each other: the *keeper* made the folder and
waits for the *server*, which takes orders from standard input. Whichever way the server ends (the
connection is closed, no order or sign of life comes for `patience_s`, a signal, a crash), the
keeper ends every process that was started here and removes the folder; where the keeper is
killed, the server does it.

An order is a line of JSON, for `put` followed by `size` bytes; an answer is a line of JSON, for
`file` likewise. Orders: `put` (a file in the folder), `run` (one process at a time), `get`,
`rename`, `discard`, `beat`, `end`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, BinaryIO

_BEAT_S = 2.0
_LINE = 4000
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# what is to be removed beside the folder; in a file, because two processes have to know of it
_DISCARDED = ".discarded"


def main(patience_s: float) -> None:
    """Make a folder, serve the orders that come, and leave nothing behind."""
    folder = tempfile.mkdtemp(prefix="phoneward-")
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    keeper = os.getpid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    server = os.fork()
    if server == 0:
        _serve(folder, keeper, patience_s)
    os.close(0)
    _wait_for(server)
    left = _clean(folder)
    with contextlib.suppress(OSError):
        os.write(1, json.dumps({"removed": not left, "folder": folder}).encode() + b"\n")
    os._exit(0)


def _wait_for(server: int) -> None:
    while True:
        # also reaps what was left to this process when its parent ended
        pid, _ = os.waitpid(-1, 0)
        if pid == server:
            return


def _serve(folder: str, keeper: int, patience_s: float) -> None:
    def given_up(*_: object) -> None:
        served.ending = True
        if os.getppid() != keeper:
            _clean(folder)
        os._exit(1)

    served = _Server(folder, patience_s)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, given_up)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        served.serve(sys.stdin.buffer)
    except OSError:  # nobody listens any more
        pass
    finally:
        os._exit(0)


class _Server:
    def __init__(self, folder: str, patience_s: float) -> None:
        self.folder, self.patience_s = folder, patience_s
        self.heard = time.monotonic()
        self.lock = threading.Lock()
        self.ending = False

    def serve(self, orders: BinaryIO) -> None:
        os.chdir(self.folder)
        for work in (self._watch, self._beat):
            threading.Thread(target=work, daemon=True).start()
        self.tell({"hello": _facts(self.folder)})
        while True:
            line = orders.readline()
            if not line.endswith(b"\n"):
                return
            self.heard = time.monotonic()
            order = json.loads(line)
            if "end" in order:
                return
            try:
                self._obey(order, orders)
            except OSError as error:
                reason = error.strerror or str(error)
                self.tell({"failed": order, "errno": error.errno, "reason": reason})

    def tell(self, answer: Any, payload: bytes = b"") -> None:
        # what is ended with the lease did not end by itself
        data = b"" if self.ending else json.dumps(answer).encode() + b"\n" + payload
        with self.lock:
            while data:
                data = data[os.write(1, data) :]

    def _watch(self) -> None:
        while time.monotonic() - self.heard < self.patience_s:
            time.sleep(_BEAT_S / 4)
        os._exit(1)

    def _beat(self) -> None:
        # on its own: writing into a connection that is stuck never returns
        while True:
            self._tell_or_end({"beat": 1})
            time.sleep(_BEAT_S)

    def _obey(self, order: Any, orders: BinaryIO) -> None:
        if "put" in order:
            self._put(order, orders.read(order["size"]))
        elif "get" in order:
            with open(order["get"], "rb") as file:  # noqa: PTH123 - Python 3.8 on any board
                content = file.read()
            self.tell({"file": order["get"], "size": len(content)}, content)
        elif "run" in order:
            self._run(order["run"], order.get("env", {}))
        elif "rename" in order:
            source, target = order["rename"]
            os.rename(source, target)  # noqa: PTH104
            self.tell({"renamed": target})
        elif "discard" in order:
            with open(_DISCARDED, "a", encoding="utf-8") as file:  # noqa: PTH123
                file.write(order["discard"] + "\n")

    def _put(self, order: Any, content: bytes) -> None:
        path = order["put"]
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "ab") as file:  # noqa: PTH123
            file.write(content)
        if order.get("last"):
            self.tell({"put": path})

    def _run(self, command: Any, env: Any) -> None:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            start_new_session=True,
        )
        follower = threading.Thread(target=self._follow, args=(child,), daemon=True)
        follower.start()
        threading.Thread(target=self._reap, args=(child, follower), daemon=True).start()

    def _follow(self, child: Any) -> None:
        for line in iter(lambda: child.stdout.readline(_LINE), b""):
            self._tell_or_end({"says": line.decode("utf-8", "replace").rstrip("\n")})

    def _reap(self, child: Any, follower: threading.Thread) -> None:
        code = child.wait()
        # not for ever: what it has started may still hold its output open
        follower.join(1)
        self._tell_or_end({"ended": code})

    def _tell_or_end(self, answer: Any) -> None:
        try:
            self.tell(answer)
        except OSError:
            os._exit(1)


def _facts(folder: str) -> Any:
    system, name, release, _, machine = os.uname()
    space = os.statvfs(folder)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(  # noqa: PTH118
        os.path.expanduser("~"),  # noqa: PTH111
        ".cache",
    )
    return {
        "folder": folder,
        "cache": os.path.join(cache, "phoneward"),  # noqa: PTH118
        "free_bytes": space.f_bavail * space.f_frsize,
        "system": system,
        "name": name,
        "release": release,
        "machine": machine,
        "python": platform.python_version(),
        "bits": 8 * struct.calcsize("P"),
    }


def _prctl(option: int, value: int) -> None:
    # only Linux has it; elsewhere processes that leave their parents outlive them
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _clean(folder: str) -> bool:
    """End all processes below this one, remove what lies here; return whether anything stays."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            below = _descendants(os.getpid())
            for pid in below:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if not below:
                break
            time.sleep(0.05)
    with contextlib.suppress(OSError), open(f"{folder}/{_DISCARDED}", encoding="utf-8") as file:  # noqa: PTH123
        for path in file.read().splitlines():
            shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    return os.path.lexists(folder)


def _descendants(root: int) -> list[int]:
    parents = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123
                # the name, in brackets, may hold anything
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state != b"Z":
                    parents[int(entry)] = int(parent)
    below = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in below} - below
        if not more:
            return sorted(below - {root})
        below |= more

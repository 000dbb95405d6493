"""The near end of the lease: orders to the board, and its answers."""

from __future__ import annotations

import errno
import json
import queue
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from phoneward.errors import PlaceError, PlaceUnreachable, WrongArchitecture
from phoneward.profiles.measure.board.client import CONNECT_S, Address, Connection
from phoneward.spec import Spec

_BEAT_S = 2.0
_PATIENCE_S = 30.0
_CHUNK = 1 << 18
_MARK = "phoneward-board"
_NOTHING_TO_RUN, _CANNOT_EXECUTE = 91, 126
_LONGEST_GREETING = 200
MACHINES = ("x86_64", "aarch64", "arm64")


class Facts(Spec):
    """What the board says of itself before anything is sent to it."""

    folder: str
    cache: str
    free_bytes: int
    system: str
    name: str
    release: str
    machine: str
    python: str
    bits: int


@dataclass
class Ended:
    """How a process there ended: its exit code (negative: the signal), and what it said."""

    code: int
    said: list[str] = field(default_factory=list)


class Link:
    """A folder on a board, and processes in it, for as long as this object is open."""

    def __init__(self, address: Address, python: str) -> None:
        source = (files(__package__) / "lease.py").read_text(encoding="utf-8")
        source += f"\nmain({_PATIENCE_S})\n"
        self.address, self.python = address, python
        self._connection = Connection(address, _command(python, len(source.encode())))
        self._answers: queue.Queue[tuple[Any, bytes] | None] = queue.Queue()
        self._lock, self._closed = threading.Lock(), threading.Event()
        self.removed, self._answering = False, False
        try:
            self._start(source)
        except BaseException:
            self.close()
            raise

    def _start(self, source: str) -> None:
        # nothing of OpenSSH's limits a login that hangs after the connection is there
        given_up = threading.Timer(2 * CONNECT_S, self._connection.process.kill)
        given_up.start()
        try:
            self._greet()
        except PlaceError as error:
            if given_up.is_alive():
                raise
            told = f"no answer within {2 * CONNECT_S} s"
            raise PlaceUnreachable(str(self.address), told) from error
        finally:
            given_up.cancel()
        self._send(source.encode())
        self._answering = True
        for work in (self._listen, self._beat):
            threading.Thread(target=work, daemon=True).start()
        answer, _ = self._next("hello")
        try:
            self.facts = Facts.model_validate(answer["hello"])
        except ValidationError as error:
            raise PlaceError(str(self.address), f"strange greeting: {answer}") from error

    def _greet(self) -> None:
        """Skip what a login prints, up to our mark; refuse what is no Linux at once."""
        seen: list[str] = []
        for _ in range(_LONGEST_GREETING):
            line = self._connection.stdout.readline(4096).decode("utf-8", "replace").strip()
            if line.startswith(_MARK):
                self._check_system(line.split()[1:])
                return
            if not line and self._connection.process.poll() is not None:
                break
            seen.append(line)
        error = self._connection.why_it_ended()
        if isinstance(error, PlaceUnreachable) and not any(seen):
            raise error
        said = next((line for line in seen if line), error.reason)
        raise PlaceError(str(self.address), f"a shell was expected there; it says: {said}")

    def _check_system(self, told: Sequence[str]) -> None:
        system, machine = (*told, "", "")[:2]
        if system != "Linux":
            raise WrongArchitecture(str(self.address), f"runs {system or 'no Linux'}, not Linux")
        if machine not in MACHINES:
            raise WrongArchitecture(
                str(self.address),
                f"is {machine or 'of an unknown architecture'}; the engines exist for "
                f"{' and '.join(MACHINES[:2])}",
            )

    def put(self, path: str, content: bytes | Path) -> None:
        """Write a file in the folder, in pieces, so that a full device is noticed early."""
        data = content if isinstance(content, bytes) else content.read_bytes()
        pieces = [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)] or [b""]
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            self._order({"put": path, "size": len(piece), "last": last}, piece)
        self._next("put")

    def get(self, path: str) -> bytes:
        """Read a file from the folder."""
        self._order({"get": path})
        return self._next("file")[1]

    def run(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        says: Callable[[str], None] = lambda line: None,
    ) -> Ended:
        """Run a process in the folder to its end; `says` is told each line of its output."""
        self._order({"run": list(command), "env": dict(env or {})})
        ended = Ended(0)
        while True:
            answer, _ = self._next("says", "ended")
            if "ended" in answer:
                ended.code = int(answer["ended"])
                return ended
            ended.said.append(answer["says"])
            says(answer["says"])

    def rename(self, source: str, target: str) -> None:
        """Rename a folder there."""
        self._order({"rename": [source, target]})
        self._next("renamed")

    def discard(self, path: str) -> None:
        """Have something outside the folder removed at the end, if it is still there."""
        self._order({"discard": path})

    def _order(self, order: Mapping[str, Any], payload: bytes = b"") -> None:
        self._send(json.dumps(order).encode() + b"\n" + payload)

    def _send(self, data: bytes) -> None:
        try:
            with self._lock:
                self._connection.stdin.write(data)
                self._connection.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._gone() from error

    def _beat(self) -> None:
        while not self._closed.wait(_BEAT_S):
            try:
                self._order({"beat": 1})
            except PlaceError:
                return

    def _listen(self) -> None:
        stdout = self._connection.stdout
        try:
            while (line := stdout.readline()).endswith(b"\n"):
                answer = json.loads(line)
                payload = stdout.read(answer["size"]) if "file" in answer else b""
                self._answers.put((answer, payload))
        except (OSError, ValueError):  # cut short, or no JSON: nothing more can be understood
            pass
        finally:
            self._answers.put(None)

    def _next(self, *kinds: str) -> tuple[Any, bytes]:
        """Wait for an answer of these kinds; raises what went wrong instead."""
        while True:
            try:
                got = self._answers.get(timeout=_PATIENCE_S)
            except queue.Empty:
                self._answering = False
                raise PlaceUnreachable(
                    str(self.address), f"no sign of life for {_PATIENCE_S:.0f} s"
                ) from None
            if got is None:
                raise self._gone()
            answer, payload = got
            if "failed" in answer:
                raise self._failure(answer)
            if any(kind in answer for kind in kinds):
                return answer, payload

    def _failure(self, answer: Any) -> PlaceError:
        order, reason, where = answer["failed"], answer["reason"], str(self.address)
        if answer["errno"] in (errno.ENOSPC, errno.EDQUOT):
            return PlaceError(where, f"no space left in {self.facts.folder} ({reason})")
        if answer["errno"] == errno.ENOEXEC:
            return WrongArchitecture(where, f"{order['run'][0]} cannot be executed there")
        what = order.get("run", [None])[0] or order.get("get") or order.get("put") or "the folder"
        return PlaceError(where, f"{what}: {reason}")

    def _gone(self) -> PlaceError:
        error = self._connection.why_it_ended()
        code, where = self._connection.process.returncode, str(self.address)
        if code == _NOTHING_TO_RUN:
            told = f"there is no {self.python} there; install Python 3.10 or newer"
            return PlaceError(where, told)
        if code == _CANNOT_EXECUTE:
            return WrongArchitecture(where, f"{self.python} cannot be executed: {error.reason}")
        told = f"it went away in the middle ({error.reason}); what was started there ends by itself"
        return PlaceUnreachable(where, told)

    def close(self) -> None:
        """End what runs there and have the folder removed; `removed` says whether that is known."""
        if self._closed.is_set():
            return
        self._closed.set()
        if not self._answering:
            self._connection.close(1)
            return
        try:
            self._order({"end": 1})
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline and not self.removed:
                got = self._answers.get(timeout=15)
                if got is None:
                    break
                self.removed = bool(got[0].get("removed"))
        except (PlaceError, queue.Empty):
            pass  # it is gone, and the keeper over there does the rest
        finally:
            self._connection.close()


def _command(python: str, size: int) -> str:
    # one line in single quotes: the login shell may be any
    read = f"import sys;exec(compile(sys.stdin.buffer.read({size}),'lease','exec'))"
    script = (
        f'echo {_MARK} "$(uname -s)" "$(uname -m)"; '
        f"command -v {shlex.quote(python)} >/dev/null 2>&1 || exit {_NOTHING_TO_RUN}; "
        f"exec {shlex.quote(python)} -c {shlex.quote(read)}"
    )
    return f"exec sh -c {shlex.quote(script)}"


@contextmanager
def leased(address: Address, python: str) -> Iterator[Link]:
    """Hold a folder on a board for the length of the block."""
    link = Link(address, python)
    try:
        yield link
    finally:
        link.close()

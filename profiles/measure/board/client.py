"""The OpenSSH client as the way to a board: the user's own configuration, keys and agent."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections import deque
from dataclasses import dataclass

from phoneward.errors import PlaceError, PlaceUnreachable

CONNECT_S = 15
_ADDRESS = re.compile(
    r"(?:(?P<user>[\w.+$][\w.+$-]*)@)?(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[\w.][\w.-]*))"
    r"(?::(?P<port>\d{1,5}))?/?"
)
# what OpenSSH says, and what it means to whoever reads only our message
_MEANINGS = (
    (
        "HOST IDENTIFICATION HAS CHANGED",
        "its host key has changed: somebody may be in between, or the board was set up anew; if "
        "you know why, forget the old key: ssh-keygen -R {known}",
    ),
    (
        "Host key verification failed",
        "its host key is not known here; connect once by hand and compare: ssh {by_hand}",
    ),
    ("Permission denied", "it refuses us: {line}; try: ssh {by_hand}"),
    ("Too many authentication failures", "it refuses us: {line}; try: ssh {by_hand}"),
)


@dataclass(frozen=True)
class Address:
    """Where a board is: a name or number that OpenSSH understands, aliases included."""

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        """Return the place as it is asked for."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"ssh://{user}{host}" + (f":{self.port}" if self.port else "")

    @property
    def arguments(self) -> list[str]:
        """What follows `ssh` and its options."""
        port = ["-p", str(self.port)] if self.port else []
        return [*port, f"{self.user}@{self.host}" if self.user else self.host]

    @property
    def known_as(self) -> str:
        """How `known_hosts` has it."""
        return f"'[{self.host}]:{self.port}'" if self.port not in (None, 22) else self.host


def parse_address(text: str) -> Address:
    """Read `[user@]host[:port]`, an IPv6 number in brackets; raises `PlaceError`."""
    found = _ADDRESS.fullmatch(text)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port is not None and not 0 < port < 65536):
        raise PlaceError(f"ssh://{text}", "no address; it looks like ssh://user@host[:port]")
    return Address(found["v6"] or found["host"], found["user"], port)


class Connection:
    """One `ssh` process that executes one command there; its pipes are the way in and out.

    It ends when its standard input is closed, hence also when this process dies.
    """

    def __init__(self, address: Address, command: str) -> None:
        self.address = address
        program = shutil.which("ssh")
        if program is None:
            raise PlaceError(str(address), "there is no ssh here; install the OpenSSH client")
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(CONNECT_S),
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "4",
            "ClearAllForwardings": "yes",
            "ForwardAgent": "no",
            "LogLevel": "ERROR",
            "RemoteCommand": "none",
        }
        arguments = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        self.process = subprocess.Popen(
            [program, "-T", *arguments, *address.arguments, command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self._complaints: deque[str] = deque(maxlen=40)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr
        with self.process.stderr as stderr:
            for line in stderr:
                self._complaints.append(line.decode("utf-8", "replace").strip())

    def why_it_ended(self) -> PlaceError:
        """Say, after its output has ended, why."""
        self.close()
        lines = [line for line in self._complaints if line.strip("@ ")]
        last = lines[-1] if lines else ""
        where = str(self.address)
        by_hand = " ".join(self.address.arguments)
        for sign, meaning in _MEANINGS:
            line = next((line for line in lines if sign in line), None)
            if line is not None:
                told = meaning.format(line=line, by_hand=by_hand, known=self.address.known_as)
                return PlaceUnreachable(where, told)
        if self.process.returncode == 255:
            return PlaceUnreachable(where, last or "the connection ended")
        return PlaceError(where, last or f"the shell there ended ({self.process.returncode})")

    def close(self, patience_s: float = 5) -> None:
        """End the connection; whatever runs at the other end notices."""
        # what could not be written any more is lost anyway
        with contextlib.suppress(OSError):
            self.stdin.close()
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._listener.join()
        # last: somebody may still be reading it
        self.stdout.close()

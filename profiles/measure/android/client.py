"""The `adb` program: which phone, a folder on it, and commands there."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from phoneward.errors import PlaceError, PlaceUnreachable

ROOM = "/data/local/tmp"
_PATIENCE_S = 60
# timed inferences may take minutes; a phone that hangs should not take for ever
_LONGEST_RUN_S = 1800
_EXIT = "phoneward-exit"
# Holds the folder while its standard input is open, which is as long as the cable is in and
# whoever asks is alive; then ends what was started in it and removes it.
_HOLD = (
    f'd=$(mktemp -d {ROOM}/phoneward.XXXXXX) || exit 90; trap "" HUP TERM PIPE; '
    'echo "phoneward-folder $d"; cat >/dev/null; '
    'for p in $(cat "$d/pids" 2>/dev/null); do kill -9 "-$p" "$p" 2>/dev/null; done; '
    'rm -rf "$d"; echo phoneward-removed'
)
_GONE = re.compile(
    r"error: (closed|no devices|device .*(not found|offline|unauthorized))|protocol fault", re.I
)
_NO_SPACE = "No space left on device"


@dataclass(frozen=True)
class Phone:
    """A phone that adb talks to."""

    adb: str
    serial: str

    @property
    def place(self) -> str:
        """Where it is, as it is asked for."""
        return f"adb:{self.serial}"

    def call(self, *arguments: str, longest_s: float = _PATIENCE_S) -> str:
        """Run an adb command and return its output; raises `PlaceError` with what went wrong."""
        command = [self.adb, "-s", self.serial, *arguments]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=longest_s,
            )
        except subprocess.TimeoutExpired as error:
            raise PlaceUnreachable(self.place, f"no answer within {longest_s:.0f} s") from error
        output = done.stdout.decode("utf-8", "replace").replace("\r\n", "\n")
        if done.returncode:
            raise self._failure(output, arguments[0])
        return output

    def shell(self, script: str, longest_s: float = _PATIENCE_S) -> str:
        """Run a script in the phone's shell."""
        return self.call("shell", script, longest_s=longest_s)

    def _failure(self, output: str, what: str) -> PlaceError:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        last = lines[-1] if lines else f"adb {what} failed"
        if _NO_SPACE in output:
            return PlaceError(self.place, f"no space left in {ROOM}")
        if _GONE.search(output) or not self.is_there():
            return PlaceUnreachable(self.place, f"it went away ({last})")
        return PlaceError(self.place, f"adb {what}: {last}")

    def is_there(self) -> bool:
        """Tell whether the phone still answers."""
        with contextlib.suppress(PlaceError):
            return _states(self.adb).get(self.serial) == "device"
        return False


def find_phone(serial: str) -> Phone:
    """Return the phone with this serial number; with none given, the only one.

    Raises:
        PlaceError: there is no adb here, or several phones to choose from.
        PlaceUnreachable: no phone, or it has not allowed us, or is offline.
    """
    place = f"adb:{serial}" if serial else "adb"
    adb = _find_adb(place)
    states = _states(adb)
    if not states:
        told = "no phone is connected; switch on USB debugging, then see: adb devices"
        raise PlaceUnreachable(place, told)
    if not serial and len(states) > 1:
        raise PlaceError(
            place, f"several phones are connected; say adb:SERIAL: {', '.join(states)}"
        )
    serial = serial or next(iter(states))
    state = states.get(serial)
    if state == "device":
        return Phone(adb, serial)
    reasons = {
        None: f"is not connected; there is: {', '.join(states)}",
        "unauthorized": "does not trust this computer; allow USB debugging on its screen",
        "offline": "is offline; unplug it and plug it in again, or: adb reconnect offline",
    }
    raise PlaceUnreachable(f"adb:{serial}", reasons.get(state, f"is in the state '{state}'"))


def _find_adb(place: str) -> str:
    homes = (os.environ.get(name) for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"))
    beside = [str(Path(home, "platform-tools")) for home in homes if home]
    for path in (None, *beside):
        if found := shutil.which("adb", path=path):
            return found
    raise PlaceError(
        place, "there is no adb on the PATH or in ANDROID_HOME; install Android's platform-tools"
    )


def _states(adb: str) -> dict[str, str]:
    try:
        done = subprocess.run(
            [adb, "devices"], capture_output=True, timeout=_PATIENCE_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PlaceError("adb", f"{adb} does not work: {error}") from error
    found = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        serial, tab, state = line.partition("\t")
        if tab:
            found[serial] = state.split()[0] if state.split() else "unknown"
    return found


@dataclass(frozen=True)
class Folder:
    """A folder on a phone that is removed at the end, whatever happens."""

    phone: Phone
    path: str

    def push(self, source: Path, name: str, *, program: bool = False) -> None:
        """Copy a file into the folder."""
        target = f"{self.path}/{name}"
        self.phone.call("push", str(source), target, longest_s=_LONGEST_RUN_S)
        if program:
            self.phone.shell(f"chmod 755 {shlex.quote(target)}")

    def run(self, command: Sequence[str], log_tag: str | None = None) -> tuple[int, str]:
        """Run a program there; return its exit code (128 + signal) and all it wrote.

        What Android's log holds of it under `log_tag` comes after its own output.
        """
        log = f"; logcat -d -v raw --pid=$p -s {log_tag}:V 2>&1" if log_tag else ""
        script = (
            f"cd {shlex.quote(self.path)} || exit 92; echo $$ >> pids; "
            # a session of its own, so that its children can be ended with it
            f"$(command -v setsid) {shlex.join(command)} </dev/null 2>&1 & p=$!; "
            "echo $p >> pids; wait $p; "
            f'c=$?; echo; echo "{_EXIT} $c"{log}'
        )
        output = self.phone.shell(script, _LONGEST_RUN_S)
        before, mark, after = output.rpartition(f"\n{_EXIT} ")
        code, _, logged = after.partition("\n")
        if not mark or not code.strip().isdigit():
            if not self.phone.is_there():
                raise PlaceUnreachable(self.phone.place, "it went away in the middle")
            raise PlaceError(self.phone.place, f"its shell ended early: {_last(output)}")
        return int(code), f"{before}\n{logged}"


@contextmanager
def folder_on(phone: Phone) -> Iterator[Folder]:
    """Hold a fresh folder on a phone for the length of the block.

    The phone itself removes it, and ends what runs in it, when the connection ends in whatever
    way; a phone that is unplugged does so once its adb daemon notices.
    """
    holder = subprocess.Popen(
        [phone.adb, "-s", phone.serial, "shell", _HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        yield Folder(phone, _folder_of(holder, phone))
    finally:
        try:
            holder.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            holder.kill()
            holder.communicate()


def _folder_of(holder: subprocess.Popen[str], phone: Phone) -> str:
    assert holder.stdout is not None
    said = []
    for line in holder.stdout:
        if line.startswith("phoneward-folder "):
            return line.split()[1]
        said.append(line.strip())
    if any(_NO_SPACE in line for line in said):
        raise PlaceError(phone.place, f"no space left in {ROOM}")
    if not phone.is_there():
        raise PlaceUnreachable(phone.place, "it went away")
    raise PlaceError(phone.place, f"no folder can be made in {ROOM}: {_last(' '.join(said))}")


def _last(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def how_it_ended(code: int) -> str:
    """Name an exit code of a phone's shell."""
    if code > 128 and code - 128 in {number.value for number in signal.Signals}:
        return f"was ended by {signal.Signals(code - 128).name}"
    return f"failed with code {code}"

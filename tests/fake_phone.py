"""A program called `adb` and a folder that stands for a phone, with this machine's shell on it.

What runs "on the phone" really runs, so that what is left running or lying there is seen.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data" / "adb"
ADB = r"""#!{python}
import json, os, subprocess, sys, threading, time
from pathlib import Path
home = Path({home!r})
room = str(home / "tmp")
state = json.loads((home / "state.json").read_text())
unplugged = home / "unplugged"
arguments = sys.argv[1:]
with (home / "calls").open("a") as file:
    file.write(json.dumps(arguments) + "\n")
if arguments == ["devices"]:
    print("List of devices attached")
    for serial, word in () if unplugged.exists() else state["devices"].items():
        print(serial + "\t" + word)
    print()
    sys.exit(0)
serial, what, rest = arguments[1], arguments[2], arguments[3:]
if unplugged.exists():
    sys.exit(f"error: device '{{serial}}' not found")
if what == "push":
    source, target = rest
    if state["full"] and state["full"] in target:
        sys.exit(f"adb: error: failed to copy '{{source}}' to '{{target}}': "
                 "remote write failed: No space left on device")
    Path(target.replace("/data/local/tmp", room)).write_bytes(Path(source).read_bytes())
    print(f"{{source}}: 1 file pushed, 0 skipped.")
    sys.exit(0)
script = rest[0].replace("/data/local/tmp", room)
there = {{**os.environ, "PATH": f"{{home}}/bin:/usr/bin:/bin", "PHONE": str(home)}}
shell = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, start_new_session=True,
                         env=there, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
def forward():
    for line in shell.stdout:
        sys.stdout.buffer.write(line.replace(room.encode(), b"/data/local/tmp"))
        sys.stdout.flush()
def feed():
    while os.read(0, 4096):
        pass
    shell.stdin.close()
for work in (forward, feed):
    threads = threading.Thread(target=work, daemon=True)
    threads.start()
    if work is forward:
        output = threads
while shell.poll() is None:
    if unplugged.exists():
        sys.stderr.write("error: closed\n")
        os._exit(1)
    time.sleep(0.01)
output.join()
sys.stdout.flush()
os._exit(shell.returncode)
"""


@dataclass
class FakePhone:
    """A phone; change `devices` and `full`, and call `plug_in`, to have it behave."""

    home: Path
    devices: dict[str, str] = field(default_factory=lambda: {"38131FDJH00": "device"})
    full: str = ""

    @property
    def tmp(self) -> Path:
        return self.home / "tmp"

    def plug_in(self, patch: pytest.MonkeyPatch) -> None:
        """Put this phone's adb on the PATH."""
        state = {"devices": self.devices, "full": self.full}
        (self.home / "state.json").write_text(json.dumps(state))
        patch.setenv("PATH", f"{self.home}:{os.environ['PATH']}")

    def program(self, name: str, script: str) -> Path:
        path = self.home / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def runner(self, script: str) -> Path:
        """A runner for `--runner`: a shell script, which the phone executes like any program."""
        path = self.home / "my_runner"
        path.write_text(f"#!/bin/sh\n{script}\n")
        return path

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.home / "calls").read_text().splitlines()]

    def processes(self) -> list[str]:
        """Command lines of all that runs on the phone."""
        marked, found = f"PHONE={self.home}".encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if marked in (entry / "environ").read_bytes().split(b"\0"):
                        line = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                        found += [line.decode()] if line else []
                except OSError:
                    continue
        return found

    def wait_until_clean(self, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.processes() and not list(self.tmp.iterdir()):
                return
            time.sleep(0.02)
        raise AssertionError((self.processes(), list(self.tmp.iterdir())))


def make_phone(home: Path) -> FakePhone:
    if shutil.which("sh") is None:
        pytest.skip("there is no sh to stand for a phone's")
    for name in ("tmp", "bin"):
        (home / name).mkdir(parents=True)
    adb = home / "adb"
    adb.write_text(ADB.format(python=sys.executable, home=str(home)))
    adb.chmod(0o755)
    phone = FakePhone(home)
    phone.program("getprop", f"cat {DATA / 'getprop.txt'}")
    phone.program("dumpsys", f"cat {DATA / 'thermalservice.txt'}")
    phone.program("df", f"cat {DATA / 'df.txt'}")
    phone.program("taskset", 'echo "mask $1" >> $PHONE/masks; shift; exec "$@"')
    phone.program("logcat", "cat $PHONE/log 2>/dev/null; true")
    return phone


BENCHMARK_MODEL = f"""
echo "$*" >> $PHONE/arguments
case "$*" in
  *--help*) cat {DATA}/benchmark_model_help.txt; exit 1 ;;
  *--enable_op_profiling*) cat {DATA}/benchmark_model_ops.txt ;;
  *--report_peak_memory*) cat {DATA}/benchmark_model_memory.txt ;;
  *) cat {DATA}/benchmark_model.txt ;;
esac
"""
EXECUTOR_RUNNER = f"""
echo "$*" >> $PHONE/arguments
case "$*" in
  *--help*) cat {DATA}/executor_runner_help.txt; exit 1 ;;
  *--num_executions=1) grep -v Iteration {DATA}/executor_runner.txt |
     sed 's/successfully 16/successfully 1/' > $PHONE/log ;;
  *) cp {DATA}/executor_runner.txt $PHONE/log ;;
esac
"""

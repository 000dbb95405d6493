"""Noise from Python, from C and from child processes goes to the log, and only meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from phoneward.quiet import noise_to

_NOISY = """
import logging, os, sys, warnings
from pathlib import Path
from phoneward.quiet import noise_to
print("before")
with noise_to(Path(sys.argv[1])):
    print("printed")
    os.write(1, b"written to 1\\n")
    os.write(2, b"written to 2\\n")
    os.system("echo from a child")
    logging.getLogger("vendor").warning("logged")
    warnings.warn("warned")
print("after")
"""


def test_all_noise_is_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    result = subprocess.run(
        [sys.executable, "-c", _NOISY, log], capture_output=True, text=True, check=True
    )
    assert (result.stdout, result.stderr) == ("before\nafter\n", "")
    text = log.read_text()
    for noise in ("printed", "written to 1", "written to 2", "from a child", "logged", "warned"):
        assert noise in text


_BUFFERED = """
import ctypes, sys
from pathlib import Path
from phoneward.quiet import noise_to
libc = ctypes.CDLL(None)
libc.printf(b"before;")
with noise_to(Path(sys.argv[1])):
    libc.printf(b"noise of a converter;")
print("after")
"""


def test_what_c_has_buffered_comes_out_where_it_belongs(tmp_path: Path) -> None:
    """Into a pipe C buffers whole blocks, and writes them when the program ends."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", _BUFFERED, tmp_path / "log"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout == "before;after\n"
    assert (tmp_path / "log").read_text() == "noise of a converter;"


def test_a_log_on_a_full_disk_does_not_swallow_what_follows() -> None:
    script = (
        "import sys; from pathlib import Path; from phoneward.quiet import noise_to\n"
        "try:\n with noise_to(Path('/dev/full')): print('noise')\n"
        "except OSError as error: print(error.strerror, file=sys.stderr)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    assert "No space left on device" in done.stderr


def test_descriptors_come_back_after_an_error(tmp_path: Path) -> None:
    before = [Path(f"/proc/self/fd/{fd}").readlink() for fd in (1, 2)]
    with pytest.raises(KeyboardInterrupt), noise_to(tmp_path / "log"):
        raise KeyboardInterrupt
    assert [Path(f"/proc/self/fd/{fd}").readlink() for fd in (1, 2)] == before

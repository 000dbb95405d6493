"""Noise from Python, from C and from child processes goes to the log, and only meanwhile."""

from __future__ import annotations

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


def test_descriptors_come_back_after_an_error(tmp_path: Path) -> None:
    before = [Path(f"/proc/self/fd/{fd}").readlink() for fd in (1, 2)]
    with pytest.raises(KeyboardInterrupt), noise_to(tmp_path / "log"):
        raise KeyboardInterrupt
    assert [Path(f"/proc/self/fd/{fd}").readlink() for fd in (1, 2)] == before

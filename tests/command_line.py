"""The command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `phoneward` with lines of 200 characters."""
    return subprocess.run(
        [sys.executable, "-m", "phoneward", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def run_at_home(*arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    """Run `phoneward` in a folder that has the user's own devices as well."""
    return run(*arguments, cwd=home, XDG_DATA_HOME=str(home))

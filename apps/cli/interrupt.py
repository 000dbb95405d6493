"""An interrupt ends the process at once and leaves nothing half written.

Raising KeyboardInterrupt from the handler is not enough: when the signal arrives while a
converter's C++ calls back into Python, the exception meets frames that cannot be unwound and the
process aborts with its temporary folders on disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from phoneward.errors import PhonewardError

EXIT_CODE = 2
_SHOW_CURSOR = "\x1b[?25h"


def leave_nothing_behind() -> None:
    """Install the handler for SIGINT and SIGTERM."""
    # copies: during a conversion descriptors 1 and 2 are a log file
    stdout, stderr = _copy_of(1), _copy_of(2)

    def handle(number: int, frame: FrameType | None) -> NoReturn:
        # nothing may get out of here but the exit: whoever reads the pipes may be gone already
        try:
            message = _discard()
            cursor = _SHOW_CURSOR if os.isatty(stderr) else ""
            _write(stderr, f"{cursor}error: {message}\n")
            if "--json" in sys.argv:
                _write(stdout, f"{json.dumps({'error': message})}\n")
        finally:
            os._exit(EXIT_CODE)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def _copy_of(descriptor: int) -> int:
    try:
        return os.dup(descriptor)
    except OSError:  # closed by whoever started this process
        return os.open(os.devnull, os.O_WRONLY)


def _discard() -> str:
    # absent as long as nothing can have been staged: loading the command line takes a while
    staging = sys.modules.get("phoneward.staging")
    if staging is None:
        return "interrupted"
    try:
        unfinished = staging.discard_staging()
    except PhonewardError as error:
        return f"interrupted; {error}"
    return "interrupted; nothing was written" if unfinished else "interrupted"


def _write(descriptor: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(descriptor, text.encode())

"""An interrupt ends the process at once and leaves nothing half written.

Raising KeyboardInterrupt from the handler is not enough: when the signal arrives while a
converter's C++ calls back into Python, the exception meets frames that cannot be unwound and the
process aborts with its temporary folders on disk.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from phoneward.bundle import discard_staging

EXIT_CODE = 2
_MESSAGE = "error: interrupted; nothing was written\n"
_SHOW_CURSOR = "\x1b[?25h"


def leave_nothing_behind() -> None:
    """Install the handler for SIGINT and SIGTERM."""
    # a copy: during a conversion descriptor 2 is a log file
    stderr = os.dup(2)

    def handle(number: int, frame: FrameType | None) -> NoReturn:
        discard_staging()
        cursor = _SHOW_CURSOR if os.isatty(stderr) else ""
        os.write(stderr, f"{cursor}{_MESSAGE}".encode())
        sys.stdout.flush()
        os._exit(EXIT_CODE)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)

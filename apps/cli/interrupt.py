"""An interrupt ends the process at once and leaves nothing half written.

Raising KeyboardInterrupt from the handler is not enough: when the signal arrives while a
converter's C++ calls back into Python, the exception meets frames that cannot be unwound and the
process aborts with its temporary folders on disk.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

EXIT_CODE = 2
_MESSAGE = "interrupted; nothing was written"
_SHOW_CURSOR = "\x1b[?25h"


def leave_nothing_behind() -> None:
    """Install the handler for SIGINT and SIGTERM."""
    # copies: during a conversion descriptors 1 and 2 are a log file
    stdout, stderr = os.dup(1), os.dup(2)

    def handle(number: int, frame: FrameType | None) -> NoReturn:
        # absent as long as nothing can have been staged: loading the command line takes a while
        staging = sys.modules.get("phoneward.staging")
        if discard := getattr(staging, "discard_staging", None):
            discard()
        cursor = _SHOW_CURSOR if os.isatty(stderr) else ""
        os.write(stderr, f"{cursor}error: {_MESSAGE}\n".encode())
        if "--json" in sys.argv:
            os.write(stdout, f"{json.dumps({'error': _MESSAGE})}\n".encode())
        os._exit(EXIT_CODE)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)

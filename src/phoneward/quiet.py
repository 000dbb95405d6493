"""Vendor noise into a log file instead of onto the user's terminal."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def noise_to(log: Path) -> Iterator[None]:
    """Send file descriptors 1 and 2, log records and warnings to `log` (appended) meanwhile.

    Descriptors, not only `sys.stdout`: converters print from C++ and from child processes. Not
    for use in several threads at once.
    """
    _flush()
    saved = os.dup(1), os.dup(2)
    try:
        with log.open("ab", buffering=0) as sink:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            with _records_and_warnings():
                yield
    finally:
        try:
            _flush()
        finally:  # also where the log's disk is full
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    # C's own buffers too: what a converter printed into them would come out later, elsewhere
    ctypes.CDLL(None).fflush(None)


@contextmanager
def _records_and_warnings() -> Iterator[None]:
    # a handler of its own: handlers made earlier may hold another stream than descriptor 2
    handler = logging.StreamHandler(sys.__stderr__)
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers[:] = [handler]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            yield
    finally:
        root.handlers[:] = before

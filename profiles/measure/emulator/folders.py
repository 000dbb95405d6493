"""Temporary folders in the cache; the next process removes what a killed one left there."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phoneward.staging import staging_folder

_PREFIX = ".work-"
# a folder is locked right after it is made: one that is younger may not be yet
_YOUNG = 60.0


@contextmanager
def working_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in `parent` that is removed at the end unless it was renamed."""
    remove_leftovers(parent)
    with staging_folder(parent, _PREFIX) as folder, _locked(folder):
        yield folder


def remove_leftovers(parent: Path) -> None:
    """Remove the working folders whose process is gone; the kernel has dropped its locks."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime < _YOUNG:
                continue
            with _locked(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # somebody works in it, or removes it too
            continue


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; raises `BlockingIOError` if another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)

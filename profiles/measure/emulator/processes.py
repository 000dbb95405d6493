"""Child processes that end with all of their own, whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MOST = 1 << 20  # bytes that are read of each of a child's streams


class TimedOut(Exception):
    """A child was not done in time; it is gone."""


@dataclass(frozen=True)
class Finished:
    """How a child ended: `code` is negative if a signal ended it. Streams are cut at 1 MiB."""

    code: int
    output: str
    errors: str


def run_to_end(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], patience: float
) -> Finished:
    """Run a program in `folder`, in a process group of its own that is gone afterwards.

    Raises:
        TimedOut: it took longer than `patience` seconds.
        OSError: it could not be started.
    """
    with tempfile.TemporaryFile(dir=folder) as output, tempfile.TemporaryFile(dir=folder) as errors:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        try:
            code = child.wait(patience)
        except subprocess.TimeoutExpired as error:
            raise TimedOut(f"not done in {patience:g} s") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        texts = []
        for stream in (output, errors):
            stream.seek(0)
            texts.append(stream.read(_MOST).decode("utf-8", errors="replace"))
    return Finished(code, *texts)

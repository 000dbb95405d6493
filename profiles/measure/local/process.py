"""A worker process: started on a job, waited for, and ended whatever happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from phoneward.errors import PlaceError
from phoneward.profiles.measure.local.records import Failure
from phoneward.spec import Spec

A = TypeVar("A", bound=Spec)

WORKER = "phoneward.profiles.measure.local.worker"
NO_ROOM = 74
"""What a worker's exit says that could not write its answer: EX_IOERR of BSD's sysexits.h."""
_LONGEST_S = 3600.0
_LONGEST_LINE = 300


def run_worker(job: Spec, answer: type[A], scratch: Path, what: str) -> A:
    """Do `job` in a process of its own and return its answer.

    `scratch` is a folder for files, the engine's own too; `what` names the job in errors. The
    worker ends when this process does, however that ends.

    Raises:
        PlaceError: the worker reported an error, ended without an answer, or took an hour.
    """
    job_file, answer_file = scratch / "job.json", scratch / "answer.json"
    log = scratch / "worker.log"
    try:
        job_file.write_text(job.model_dump_json(), encoding="utf-8")
        answer_file.unlink(missing_ok=True)
        code = _waited_for([str(job_file), str(answer_file)], log)
        text = answer_file.read_text(encoding="utf-8") if answer_file.exists() else ""
    except OSError as error:
        raise PlaceError("host", f"{what}: {error.strerror or error} in {scratch}") from error
    except subprocess.TimeoutExpired as error:
        raise PlaceError("host", f"{what}: not done after {_LONGEST_S:.0f} s") from error
    if code != 0 or not text:
        raise PlaceError("host", f"{what}: {_how_it_ended(code, text, log, scratch)}")
    return answer.model_validate_json(text)


def _waited_for(files: list[str], log: Path) -> int:
    command = [sys.executable, "-m", WORKER, *files]
    # engines leave files in the folder for temporary ones: ONNX Runtime 1.32 does
    env = {**os.environ, "TMPDIR": str(log.parent)}
    # standard input is the worker's lifeline: it ends when the other end closes
    with (
        log.open("wb") as sink,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=sink, stderr=sink, env=env
        ) as process,
    ):
        try:
            return process.wait(_LONGEST_S)
        except BaseException:
            process.kill()
            raise


def _how_it_ended(code: int, text: str, log: Path, scratch: Path) -> str:
    if text:
        try:
            return Failure.model_validate_json(text).error
        except ValidationError:
            return f"its process ended with code {code} and an answer that is none"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}{_last_words(log)}"
    if code == NO_ROOM:
        return f"its process could not write to {scratch}"
    return f"its process ended with code {code}{_last_words(log)}"


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    # vendors quote source files with folders that say nothing to a user
    line = re.sub(r"/\S*/site-packages/", "", lines[-1])[:_LONGEST_LINE] if lines else ""
    return f": {line}" if line else ""

"""A process of its own for each conversion and each measurement.

The job goes in and the answer comes out as JSON files, because vendor libraries write to
standard output and error; those two go to a log.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from phoneward.errors import PhonewardError
from phoneward.spec import Spec

J = TypeVar("J", bound=Spec)
A = TypeVar("A", bound=Spec)
_RECORD = "record.json"
_LONGEST_S = 3600
_LONGEST_LINE = 200


class ChildError(PhonewardError):
    """A child process failed; `str()` is the first line of its error."""


class _Report(Spec):
    error: str


def run_child(module: str, job: Spec, answer: type[A], scratch: Path) -> A:
    """Run `python -m phoneward.apps.bench.<module>` on a job and return its answer.

    `scratch` is a path without suffix; `.job.json`, `.answer.json` and `.log` are put there.
    Raises `ChildError`.
    """
    scratch.parent.mkdir(parents=True, exist_ok=True)
    job_file, answer_file, log = (
        scratch.with_name(scratch.name + end) for end in (".job.json", ".answer.json", ".log")
    )
    job_file.write_text(job.model_dump_json(), encoding="utf-8")
    answer_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"phoneward.apps.bench.{module}"]
    command += [str(job_file), str(answer_file)]
    with log.open("wb") as sink:
        try:
            done = subprocess.run(
                command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, timeout=_LONGEST_S
            )
        except subprocess.TimeoutExpired as error:
            raise ChildError(f"not done after {_LONGEST_S} s") from error
    text = answer_file.read_text(encoding="utf-8") if answer_file.exists() else ""
    if done.returncode == PhonewardError.exit_code and text:
        raise ChildError(_Report.model_validate_json(text).error)
    if done.returncode != 0 or not text:
        raise ChildError(_how_it_ended(done.returncode, log))
    return answer.model_validate_json(text)


def kept(module: str, job: Spec, answer: type[A], folder: Path, stale: str) -> A:
    """Return what a child put into `folder` earlier, or run it on a job that fills the folder.

    Folders beside it that match `stale` hold what older code made, and are removed first. Raises
    `ChildError`.
    """
    record = folder / _RECORD
    if record.exists():
        return answer.model_validate_json(record.read_text(encoding="utf-8"))
    for old in folder.parent.glob(stale):
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True)
    made = run_child(module, job, answer, folder / module)
    record.write_text(made.model_dump_json(), encoding="utf-8")
    return made


def serve(job_type: type[J], work: Callable[[J], Spec]) -> None:
    """The child's side: read the job named on the command line, do it, write the answer, exit."""
    job_file, answer_file = map(Path, sys.argv[1:])
    job = job_type.model_validate_json(job_file.read_text(encoding="utf-8"))
    try:
        answer, code = work(job), 0
    except PhonewardError as error:
        answer, code = _Report(error=first_line(str(error))), PhonewardError.exit_code
    answer_file.write_text(answer.model_dump_json(), encoding="utf-8")
    sys.exit(code)


def first_line(text: str) -> str:
    """The first line with something on it, without folders, shortened to fit a table."""
    lines = [line.strip() for line in without_folders(text).splitlines() if line.strip()]
    line = lines[0] if lines else "no message"
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


def without_folders(error: str) -> str:
    """Vendors quote source files with this machine's folders, which say nothing elsewhere."""
    return re.sub(r"/\S*/site-packages/", "", error)


def _how_it_ended(code: int, log: Path) -> str:
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return first_line(lines[-1]) if lines else f"the process ended with code {code}"

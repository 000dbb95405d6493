"""The far end: profiles on `host` there, with the installation it belongs to.

`python -m phoneward.profiles.measure.board.worker JOB ANSWER`: the job is a file of JSON, the
answer is the report, or what went wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from phoneward.bundle import Bundle
from phoneward.errors import PhonewardError
from phoneward.names import Precision
from phoneward.profiles.measure import PLACES, Request
from phoneward.runtime.artifacts import Wanted
from phoneward.spec import Spec

# before a line of progress; what libraries print has none
MARK = "phoneward> "


class Job(Spec):
    """A `Request` without what has no meaning on another machine."""

    bundle: str
    engine: str | None
    format_name: str | None
    precision: Precision | None
    stages: tuple[str, ...]
    threads: int
    cores: tuple[int, ...]
    runs: int
    cold_starts: int
    sustained_s: float
    op_times: bool
    frames: int
    device: str | None

    @classmethod
    def of(cls, request: Request, folder: str) -> Job:
        """Say of a request what a worker needs, with the bundle in `folder`."""
        wanted = request.wanted
        own: dict[str, Any] = {
            name: getattr(request, name) for name in cls.model_fields if hasattr(request, name)
        }
        asked = {
            "engine": wanted.engine,
            "format_name": wanted.format_name,
            "precision": wanted.precision,
        }
        return cls.model_validate({**own, **asked, "bundle": folder})

    def request(self) -> Request:
        """The request again; raises `BundleError`."""
        own = {
            name: getattr(self, name)
            for name in Request.__dataclass_fields__
            if name in type(self).model_fields and name != "bundle"
        }
        wanted = Wanted(self.engine, self.format_name, self.precision)
        return Request(bundle=Bundle.open(self.bundle), wanted=wanted, **own)


class Failure(Spec):
    """What a worker answers in place of a report."""

    kind: str
    error: str


def work(job_file: Path, answer_file: Path) -> None:
    """Do the job; the answer is whole or absent."""
    answer: Spec
    try:
        job = Job.model_validate_json(job_file.read_text(encoding="utf-8"))
        answer = PLACES.get("host")("", job.request(), _say)
    except PhonewardError as error:
        answer = Failure(kind=type(error).__name__, error=str(error))
    staged = answer_file.with_name(answer_file.name + ".part")
    staged.write_text(answer.model_dump_json(), encoding="utf-8")
    staged.replace(answer_file)


def _say(step: str) -> None:
    sys.stdout.write(f"{MARK}{step}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]))

"""`ssh://user@host[:port]`: a Linux board, by the OpenSSH client and a `phoneward` over there."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from pydantic import ValidationError

from phoneward.errors import PlaceError, ReportError, WrongArchitecture
from phoneward.names import Provenance
from phoneward.profiles.device import load_device
from phoneward.profiles.measure.board.bootstrap import engines_of, ready_python
from phoneward.profiles.measure.board.client import parse_address
from phoneward.profiles.measure.board.link import leased
from phoneward.profiles.measure.board.worker import MARK, Failure, Job
from phoneward.profiles.measure.subset import formats_read_by, subset_of, wanted_artifacts
from phoneward.profiles.report.file import parse_report

if TYPE_CHECKING:
    from phoneward.profiles.measure import Request
    from phoneward.profiles.measure.board.link import Ended, Link
    from phoneward.profiles.measure.subset import Subset
    from phoneward.profiles.report.schema import LatencyReport

# beside the artifacts: the job, the answer, and what engines unpack
_MARGIN_BYTES = 16 << 20
_LAST_WORDS = 3


def profile(address: str, request: Request, progress: Callable[[str], None]) -> LatencyReport:
    """Send what is wanted of the bundle to a board, profile it there, and bring the report back.

    Raises:
        PlaceUnreachable: it is not there, not the one that is known, refuses us, or went away.
        WrongArchitecture: it is no 64-bit Linux on x86 or Arm, or not the device that was named.
        PlaceError: no room, no Python, no engine there, or the profile failed there.
        ReportError: what came back is no report of what was sent.
        BundleError, ArtifactChanged, UnknownName: of the bundle or of what is asked of it.
    """
    board = parse_address(address)
    asked = request.wanted.engine
    formats = formats_read_by(lambda name: name not in ("mil", "coreml") or name == asked)
    chosen = wanted_artifacts(request, formats, str(board))
    subset_of(request.bundle, chosen)  # what is damaged need not be sent
    progress(f"connecting to {board}")
    with leased(board, request.setup.python) as link:
        _check_device(link, request.device)
        engines = engines_of({artifact.format for artifact in chosen}, asked)
        python, able = ready_python(link, request.setup, engines, progress)
        runnable = formats_read_by(lambda name: name in able)
        part = subset_of(request.bundle, [a for a in chosen if a.format in runnable])
        _send(link, part, progress)
        return _profile(link, request, part, python, progress)


def _check_device(link: Link, name: str | None) -> None:
    if name is None:
        return
    arch = load_device(name).facts.get("isa_arch")
    if arch and str(arch.value).startswith("Arm") and link.facts.machine == "x86_64":
        raise WrongArchitecture(
            str(link.address), f"is {link.facts.machine}; {name} is {arch.value}"
        )


def _send(link: Link, part: Subset, progress: Callable[[str], None]) -> None:
    needed, free = part.size + _MARGIN_BYTES, link.facts.free_bytes
    if needed > free:
        raise PlaceError(
            str(link.address),
            f"no space in {link.facts.folder}: {needed / 1e6:.0f} MB are needed, "
            f"{free / 1e6:.0f} MB are free",
        )
    progress(f"sending {part.size / 1e6:.1f} MB")
    for path, content in part.members():
        link.put(f"bundle/{path}", content)


def _profile(
    link: Link, request: Request, part: Subset, python: str, progress: Callable[[str], None]
) -> LatencyReport:
    job = Job.of(request, "bundle")
    link.put("job.json", job.model_dump_json().encode())

    def says(line: str) -> None:
        if line.startswith(MARK):
            progress(line.removeprefix(MARK))

    module = "phoneward.profiles.measure.board.worker"
    # what it writes for itself is then removed with the folder, even if it is killed
    env = {"TMPDIR": link.facts.folder}
    ended = link.run([python, "-m", module, "job.json", "report.json"], env, says)
    if ended.code != 0:
        raise PlaceError(str(link.address), _how_it_ended(ended))
    text = link.get("report.json").decode("utf-8", "replace")
    report = _checked(link, text, part)
    return report.model_copy(
        update={
            "place": str(link.address),
            # boards without a battery for their clock believe in another year
            "created": datetime.now(timezone.utc),
        }
    )


def _checked(link: Link, text: str, part: Subset) -> LatencyReport:
    """Take nothing for a report of ours that is none."""
    source = f"the answer of {link.address}"
    try:
        failure = Failure.model_validate_json(text)
    except ValidationError:
        pass
    else:
        raise PlaceError(str(link.address), f"{failure.error} ({failure.kind})")
    report = parse_report(source, text)
    if report.provenance is not Provenance.MEASURED:
        raise ReportError(source, f"provenance: {report.provenance}, where it should be measured")
    sent = {artifact.sha256 for artifact in part.artifacts}
    for stage in report.stages:
        if stage.artifact_sha256 not in sent:
            raise ReportError(
                source, f"stage '{stage.stage}' has the checksum of no artifact that was sent"
            )
    if report.subject.model != part.manifest.model:
        raise ReportError(
            source, f"subject.model: {json.dumps(report.subject.model)} was not what was sent"
        )
    return report


def _how_it_ended(ended: Ended) -> str:
    words = [line for line in ended.said if line.strip() and not line.startswith(MARK)]
    told = " / ".join(words[-_LAST_WORDS:]) or "it said nothing"
    if ended.code < 0:
        return f"the profiler there was ended by {signal.Signals(-ended.code).name}: {told}"
    return f"the profiler there failed with code {ended.code}: {told}"

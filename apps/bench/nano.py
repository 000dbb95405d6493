"""`python -m phoneward.apps.bench.nano`: how good and how fast efficienttam-nano is.

Exports it in every format in single and half precision, follows the bundled clip's object with
each set of artifacts in a process of its own, evaluates the fastest set on the held-out clips, and
writes `docs/benchmarks/efficienttam-nano.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from phoneward.apps.bench.child import ChildError, run_child
from phoneward.apps.bench.machine import quoted_command, this_machine
from phoneward.apps.bench.nano_page import render
from phoneward.apps.bench.nano_records import (
    ClipRow,
    Followed,
    FollowJob,
    Judged,
    NanoResults,
    Refused,
    Score,
)
from phoneward.apps.bench.options import add_places, errors_end, positive, write_page
from phoneward.apps.bench.records import EAGER
from phoneward.apps.bench.turns import held, schedule, take_turns
from phoneward.apps.cli.annotated import open_annotated
from phoneward.apps.cli.demo_tracking import MODEL
from phoneward.apps.cli.evaluation import Job
from phoneward.apps.cli.output import progress_bar
from phoneward.bundle import Bundle
from phoneward.errors import ConversionError, PhonewardError
from phoneward.export.backends import BACKENDS
from phoneward.export.pipeline import GateFailed, Options, export_bundle
from phoneward.export.request import make_request
from phoneward.names import Precision
from phoneward.runtime.artifacts import Wanted
from phoneward.runtime.clip import mask_ious
from phoneward.runtime.engines import engines_for
from phoneward.runtime.evaluation import PromptKind
from phoneward.runtime.evaluation.folder import SHEET, EvaluationFolder

if TYPE_CHECKING:
    from phoneward.apps.cli.evaluation import Progress

_MODULE = "phoneward.apps.bench.nano"
_PRECISIONS = (Precision.FP32, Precision.FP16)
_BASELINES = ("copy", "flow", "template")
_QUALITY = 85  # of a JPEG
_REFERENCE = (EAGER, Precision.FP32)

Kind = tuple[str, Precision]
"""A set of artifacts, one of each stage: their format and precision."""


@errors_end
def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns 0, 1 if a set of artifacts is missing, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    bench = Bench(options.work.absolute() / "nano", options.threads)
    with progress_bar(quiet=False) as progress:
        for format_name in BACKENDS:
            for precision in _PRECISIONS:
                if engines_for(format_name):
                    bench.export((format_name, precision), progress)
        take_turns(
            schedule([_REFERENCE, *bench.bundles], options.rounds, lambda _: MODEL),
            bench.follow,
            options.lock,
        )
        rows = bench.rows()
        fastest = min(rows[1:], key=lambda row: row.frame_ms)
        bundle = bench.bundles[fastest.format, fastest.precision]
        with held(options.lock, exclusive=True):
            judged = [
                bench.judge(bundle, prompt, options.clips, progress)
                for prompt in (PromptKind.MASK, PromptKind.CLICK)
            ]
    results = NanoResults(
        machine=this_machine(),
        date=datetime.now(timezone.utc).date().isoformat(),
        command=quoted_command(_MODULE, arguments),
        threads=options.threads,
        rounds=options.rounds,
        clip=tuple(rows),
        refused=tuple(bench.refused),
        judged=tuple(judged),
    )
    pictures = {one.prompt: bench.picture(one.prompt, options.output) for one in judged}
    write_page(options.output, render(results, pictures), results)
    return 1 if bench.refused else 0


@dataclass
class Bench:
    """What was exported and run so far."""

    work: Path
    threads: int
    bundles: dict[Kind, Bundle] = field(default_factory=dict)
    runs: dict[Kind, list[Followed]] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)

    def export(self, kind: Kind, progress: Progress) -> None:
        """Make a bundle of one set of artifacts, or note why there is none."""
        request = make_request(MODEL, "pretrained", (), [kind[0]], [kind[1]])
        folder = self.work / "-".join(kind)
        try:
            self.bundles[kind] = export_bundle(request, folder, Options(force=True), progress)
        except (GateFailed, ConversionError) as error:
            self._refuse(kind, error)

    def follow(self, number: int, kind: Kind) -> None:
        """Let a process follow the clip's object once, if it could so far."""
        if self._refusal(kind):
            return
        job = FollowJob(
            bundle=str(self.bundles[kind].path) if kind in self.bundles else None,
            threads=self.threads,
            answer=str(self._answer(kind)),
        )
        self._answer(kind).parent.mkdir(parents=True, exist_ok=True)
        scratch = self.work / "runs" / f"{'-'.join(kind)}-{number}"
        try:
            done = run_child("nano_worker", job, Followed, scratch)
        except ChildError as error:
            self._refuse(kind, error)
        else:
            self.runs.setdefault(kind, []).append(done)

    def rows(self) -> list[ClipRow]:
        """Return what came of PyTorch, then of each set that ran every time.

        Raises:
            ChildError: that is not PyTorch and one more.
        """
        if refused := self._refusal(_REFERENCE):
            raise ChildError(f"PyTorch cannot follow the clip: {refused.error}")
        if len(self.runs) < 2:
            raise ChildError("no set of artifacts can follow the clip")
        return [self.row(kind) for kind in self.runs]

    def row(self, kind: Kind) -> ClipRow:
        """Return what came of a set: its times, and its agreement with PyTorch."""
        expected, found = (np.load(self._answer(each)) for each in (_REFERENCE, kind))
        return ClipRow(
            format=kind[0],
            precision=kind[1],
            ious=tuple(mask_ious(expected, found)),
            runs=tuple(self.runs[kind]),
        )

    def judge(self, bundle: Bundle, prompt: PromptKind, clips: int, progress: Progress) -> Judged:
        """Evaluate on the held-out clips; leaves the sheet in the work folder."""
        folder = EvaluationFolder(self._evaluation(prompt), force=True)
        job = Job(
            bundle=bundle,
            wanted=Wanted(None, None, None),
            threads=self.threads,
            prompt=prompt,
            baselines=_BASELINES,
            folder=folder,
        )
        data = f"held-out:{clips}"
        result = job.run(open_annotated(data, None, None), progress)
        record = job.record(result, data=data, subset=None)
        folder.close(record)
        scores = [
            Score(name=one.name, jf=one.jf, j=one.j, f=one.f, frame_ms=one.frame_ms_median)
            for one in result.all
        ]
        return Judged(
            prompt=prompt,
            subject=record.subject.model_copy(update={"bundle": bundle.path.name}),
            clips=len(result.tracker.sequences),
            objects=sum(len(each.objects) for each in result.tracker.sequences),
            scores=tuple(scores),
        )

    def picture(self, prompt: PromptKind, page: Path) -> str:
        """Put the sheet of an evaluation beside the page; returns its name."""
        name = f"{page.stem}-{prompt.value}.jpg"
        page.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(self._evaluation(prompt) / SHEET) as sheet:
            sheet.save(page.with_name(name), quality=_QUALITY)
        return name

    def _evaluation(self, prompt: PromptKind) -> Path:
        return self.work / f"evaluation-{prompt.value}"

    def _refusal(self, kind: Kind) -> Refused | None:
        return next((one for one in self.refused if (one.format, one.precision) == kind), None)

    def _refuse(self, kind: Kind, error: PhonewardError) -> None:
        self.runs.pop(kind, None)
        self.refused.append(Refused(format=kind[0], precision=kind[1], error=str(error)))

    def _answer(self, kind: Kind) -> Path:
        return self.work / "runs" / f"{'-'.join(kind)}.npy"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(_MODULE, description=__doc__)
    add = parser.add_argument
    add("--clips", type=positive, default=100, help="held-out clips [100]")
    add("--rounds", type=positive, default=3, help="processes of each set of artifacts [3]")
    add_places(parser, Path("docs/benchmarks/efficienttam-nano.md"))
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The course of `phoneward evaluate`, and the tables that tell what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from phoneward.apps.cli.output import print_table

if TYPE_CHECKING:
    from phoneward.apps.cli.annotated import Annotated
    from phoneward.bundle import Bundle
    from phoneward.runtime.artifacts import Wanted
    from phoneward.runtime.evaluation.folder import EvaluationFolder
    from phoneward.runtime.evaluation.prompting import PromptKind
    from phoneward.runtime.evaluation.protocol import Step
    from phoneward.runtime.evaluation.result import (
        EvaluationRecord,
        EvaluationResult,
        Subject,
        TrackerResult,
    )
    from phoneward.runtime.evaluation.sequence import Sequence

    Progress = Callable[[str, int, int], None]

# with more sequences than this a table has only means
_FEW_SEQUENCES = 30


@dataclass(frozen=True)
class Job:
    """One evaluation as it was asked for."""

    bundle: Bundle
    wanted: Wanted
    threads: int
    prompt: PromptKind
    baselines: tuple[str, ...]
    folder: EvaluationFolder | None

    def run(self, annotated: Annotated, progress: Progress) -> EvaluationResult:
        """Evaluate; raises as `evaluate`, `Tracker.open` and the registry of baselines."""
        from phoneward.quiet import noise_to
        from phoneward.runtime.evaluation.baselines import BASELINES
        from phoneward.runtime.evaluation.protocol import evaluate
        from phoneward.runtime.tracker import Tracker

        others = {name: BASELINES.get(name)() for name in self.baselines}
        with ExitStack() as stack:
            stack.enter_context(noise_to(Path(os.devnull)))
            tracker = stack.enter_context(
                Tracker.open(
                    self.bundle,
                    engine=self.wanted.engine,
                    format_name=self.wanted.format_name,
                    precision=self.wanted.precision,
                    threads=self.threads,
                )
            )
            watch = _Watch(annotated, self.folder, progress)
            return evaluate(
                tracker,
                watch.announced(),
                prompt=self.prompt,
                baselines=others,
                watch=watch.see,
            )

    def record(
        self, result: EvaluationResult, *, data: str, subset: str | None
    ) -> EvaluationRecord:
        """Say what was found, of what, and when."""
        from phoneward import __version__
        from phoneward.runtime.evaluation.result import EvaluationRecord

        return EvaluationRecord(
            version=__version__,
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            data=data,
            subset=subset,
            subject=self._subject(),
            result=result,
        )

    def _subject(self) -> Subject:
        from phoneward.runtime.artifacts import choose_set
        from phoneward.runtime.evaluation.result import Subject
        from phoneward.runtime.tracker import STAGES

        artifacts, engine = choose_set(self.bundle, STAGES, self.wanted)
        manifest, first = self.bundle.manifest, artifacts[STAGES[0]]
        return Subject(
            bundle=str(self.bundle.path),
            model=manifest.model,
            weights=manifest.weights.kind,
            weights_source=manifest.weights.source,
            weights_sha256=manifest.weights.sha256,
            format=first.format,
            precision=first.precision,
            engine=engine,
            threads=self.threads,
        )


class _Watch:
    """Hands every step to the folder, and says how far the tracker is."""

    def __init__(
        self, annotated: Annotated, folder: EvaluationFolder | None, progress: Progress
    ) -> None:
        self._annotated, self._folder, self._progress = annotated, folder, progress
        self._before = 0

    def announced(self) -> Iterable[Sequence]:
        """Yield the sequences, and count the frames of those that are done."""
        for each in self._annotated.sequences:
            self._progress(each.name, self._before, self._annotated.frames)
            yield each
            self._before += len(each.frame_names)

    def see(self, step: Step) -> None:
        """Take a step of the evaluation."""
        if self._folder is not None:
            self._folder.see(step)
        if step.who == "tracker":
            done = self._before + step.frame.index + 1
            self._progress(step.sequence.name, done, self._annotated.frames)


def tell(record: EvaluationRecord, output: Path | None, *, verbose: bool) -> None:
    """Print the tables: of sequences where they are few or `verbose`, and of means."""
    subject, result = record.subject, record.result
    count = len(result.tracker.sequences)
    if verbose or count <= _FEW_SEQUENCES:
        others = [f"{one.name} J&F" for one in result.baselines]
        columns = ("sequence", "objects", "frames", "J&F", "J", "F", *others)
        print_table("Sequences", columns, _sequence_rows(result))
    objects = sum(len(each.objects) for each in result.tracker.sequences)
    title = (
        f"{subject.model} ({subject.weights} weights), {subject.format}-{subject.precision} by "
        f"{subject.engine}; prompt: {result.prompt.value}; {objects} objects in {count} sequences"
    )
    columns = ("", "J&F", "J", "J recall", "J decay", "F", "F recall", "F decay", "ms/frame")
    print_table(title, columns, [_mean_row(one) for one in result.all])
    _tell_unjudged(result.tracker)
    if output is not None:
        print(f"Evaluation: {output}")


def _sequence_rows(result: EvaluationResult) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for position, one in enumerate(result.tracker.sequences):
        judged = {index for each in one.objects for index in each.frames}
        figures = (one.jf, one.j.mean, one.f.mean)
        others = [each.sequences[position].jf for each in result.baselines]
        shown = [f"{value:.3f}" for value in (*figures, *others)]
        rows.append((one.name, len(one.objects), len(judged), *shown))
    return rows


def _mean_row(result: TrackerResult) -> tuple[object, ...]:
    figures = [
        value for each in (result.j, result.f) for value in (each.mean, each.recall, each.decay)
    ]
    shown = [f"{value:.3f}" for value in (result.jf, *figures)]
    return result.name, *shown, f"{result.frame_ms_median:.1f}"


def _tell_unjudged(result: TrackerResult) -> None:
    for each in result.sequences:
        for one in each.unjudged:
            print(f"not judged: object {one} of {each.name}, first seen on its last annotation")

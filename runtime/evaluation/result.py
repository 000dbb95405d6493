"""What an evaluation found: frame by frame, by object, by sequence, and in the mean."""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from statistics import median
from typing import Annotated, Literal

from pydantic import Field, model_validator

from phoneward.bundle import Share
from phoneward.errors import DataError
from phoneward.names import Precision
from phoneward.runtime.evaluation.metrics import Statistics, mean_of, statistics
from phoneward.runtime.evaluation.prompting import PromptKind
from phoneward.spec import Spec

SCHEMA: Literal["phoneward-evaluation-1"] = "phoneward-evaluation-1"
Milliseconds = Annotated[float, Field(ge=0)]


class ObjectResult(Spec):
    """One object: the frames that were judged, and J and F of each.

    `object` is its index in the annotations, `first` the frame on which it was prompted.
    """

    object: int
    first: int
    frames: Annotated[tuple[int, ...], Field(min_length=1)]
    j: tuple[Share, ...]
    f: tuple[Share, ...]
    j_statistics: Statistics
    f_statistics: Statistics

    @classmethod
    def of(
        cls, object_id: int, first: int, rows: Ordered[tuple[int, float, float]]
    ) -> ObjectResult:
        """Make it of (frame, J, F), in order of time."""
        frames, j, f = zip(*rows, strict=True)
        return cls(
            object=object_id,
            first=first,
            frames=frames,
            j=j,
            f=f,
            j_statistics=statistics(j),
            f_statistics=statistics(f),
        )

    @model_validator(mode="after")
    def _of_one_length(self) -> ObjectResult:
        if not len(self.frames) == len(self.j) == len(self.f):
            raise ValueError("frames, j and f differ in length")
        return self


class SequenceResult(Spec):
    """One sequence; the statistics are means over its objects.

    `unjudged` are objects that were tracked and have no frame to be judged on: they first appear
    on the last annotated frame. `frame_ms` has what each frame took from its pixels to masks of
    its size, from the first prompt on; reading files and judging are not in it.
    """

    name: str
    size: tuple[int, int]
    objects: Annotated[tuple[ObjectResult, ...], Field(min_length=1)]
    unjudged: tuple[int, ...] = ()
    frame_ms: Annotated[tuple[Milliseconds, ...], Field(min_length=1)]
    j: Statistics
    f: Statistics
    jf: Share

    @classmethod
    def of(
        cls,
        name: str,
        size: tuple[int, int],
        objects: Ordered[ObjectResult],
        unjudged: Ordered[int],
        frame_ms: Ordered[float],
    ) -> SequenceResult:
        """Make it of its objects, of which there is at least one."""
        j, f = _means(objects)
        return cls(
            name=name,
            size=size,
            objects=tuple(objects),
            unjudged=tuple(unjudged),
            frame_ms=tuple(frame_ms),
            j=j,
            f=f,
            jf=(j.mean + f.mean) / 2,
        )


class TrackerResult(Spec):
    """All sequences as one tracker, or baseline, did them.

    The statistics are means over all objects of all sequences, as DAVIS 2017 has them; `jf` is
    the mean of both means. `frame_ms_median` is over all frames.
    """

    name: str
    sequences: Annotated[tuple[SequenceResult, ...], Field(min_length=1)]
    j: Statistics
    f: Statistics
    jf: Share
    frame_ms_median: Milliseconds

    @classmethod
    def of(cls, name: str, sequences: Ordered[SequenceResult]) -> TrackerResult:
        """Make it of its sequences; raises `DataError` if there are none."""
        if not sequences:
            raise DataError("evaluation", "there is no sequence to judge")
        j, f = _means([one for each in sequences for one in each.objects])
        return cls(
            name=name,
            sequences=tuple(sequences),
            j=j,
            f=f,
            jf=(j.mean + f.mean) / 2,
            frame_ms_median=median(ms for each in sequences for ms in each.frame_ms),
        )


class EvaluationResult(Spec):
    """A tracker and, on the same frames, the baselines."""

    prompt: PromptKind
    tracker: TrackerResult
    baselines: tuple[TrackerResult, ...] = ()

    @property
    def all(self) -> tuple[TrackerResult, ...]:
        """The tracker, then the baselines."""
        return self.tracker, *self.baselines


class Subject(Spec):
    """What was evaluated: a bundle's model and weights, and the artifacts that ran."""

    bundle: str
    model: str
    weights: str
    weights_source: str
    weights_sha256: str | None
    format: str
    precision: Precision
    engine: str
    threads: int


class EvaluationRecord(Spec):
    """All of `evaluation.json`; `date` is UTC in ISO 8601, `version` Phoneward's."""

    format: Literal["phoneward-evaluation-1"] = SCHEMA
    version: str
    date: str
    data: str
    subset: str | None
    subject: Subject
    result: EvaluationResult


def _means(objects: Ordered[ObjectResult]) -> tuple[Statistics, Statistics]:
    return (
        mean_of([one.j_statistics for one in objects]),
        mean_of([one.f_statistics for one in objects]),
    )

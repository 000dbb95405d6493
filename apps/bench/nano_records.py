"""What the benchmark of efficienttam-nano asks its processes, and what it found."""

from __future__ import annotations

from statistics import median

from phoneward.apps.bench.records import Measured
from phoneward.bundle import Share
from phoneward.names import Precision
from phoneward.runtime.evaluation.metrics import Statistics
from phoneward.runtime.evaluation.prompting import PromptKind
from phoneward.runtime.evaluation.result import Subject
from phoneward.spec import Spec


class FollowJob(Spec):
    """Follow the bundled clip's object with a bundle's artifacts, or without one with PyTorch.

    The mask logits go to `answer`, a .npy file of (frames, 4g, 4g) float32.
    """

    bundle: str | None
    threads: int
    answer: str


class Followed(Spec):
    """The engine, and what each frame after the first took: pixels to masks of their size."""

    engine: str
    frame_ms: tuple[float, ...]


class ClipRow(Spec):
    """A set of artifacts on the clip: IoU with PyTorch's masks, frame by frame, and its runs."""

    format: str
    precision: Precision
    ious: tuple[Share, ...]
    runs: tuple[Followed, ...]

    @property
    def mean_iou(self) -> float:
        """Mean over the frames."""
        return sum(self.ious) / len(self.ious)

    @property
    def frame_ms(self) -> float:
        """The median of the runs' medians."""
        return median(median(run.frame_ms) for run in self.runs)


class Refused(Spec):
    """A set of artifacts that did not come about, or could not run, and why."""

    format: str
    precision: Precision
    error: str


class Score(Spec):
    """J, F and J&F of a tracker or a baseline, 0 to 1, and its median milliseconds a frame."""

    name: str
    jf: Share
    j: Statistics
    f: Statistics
    frame_ms: float


class Judged(Spec):
    """All scores with one kind of prompt, the tracker's first, which `subject` describes."""

    prompt: PromptKind
    subject: Subject
    clips: int
    objects: int
    scores: tuple[Score, ...]


class NanoResults(Measured):
    """All of a run: the content of the JSON file beside the page. PyTorch is the first row."""

    threads: int
    rounds: int
    clip: tuple[ClipRow, ...]
    refused: tuple[Refused, ...]
    judged: tuple[Judged, ...]

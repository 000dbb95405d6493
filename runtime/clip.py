"""Does a whole tracker still follow as PyTorch does? Numpy only, so that any board can answer.

Errors of single stages may add up through the memory bank, which no comparison stage by stage
sees. The reference of a bundle therefore has a clip, one point prompt on its first frame, and the
masks that the same `Tracker` found with PyTorch's stages. Here the artifacts of one format and
precision track it. The same code is the gate of `export` and the check of `verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from phoneward.bundle import Artifact, Bundle, ClipParity
from phoneward.errors import BundleError, EngineError
from phoneward.names import ParityStatus, Precision
from phoneward.runtime.engines import engines_for, open_session
from phoneward.runtime.parity import Reference
from phoneward.runtime.prompts import Prompt
from phoneward.runtime.tracker import STAGES, Tracker

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from phoneward.runtime.stages import Runner

Basis = Literal["masks", "logits"]
Progress = Callable[[str, int, int], None]

_FRAME_RANK = 4


@dataclass(frozen=True)
class ClipThresholds:
    """What a clip must reach: the IoU of each frame's masks, or the error of its logits.

    `relative_error` bounds the largest error of a frame over the range of PyTorch's logits; with
    `always`, also where masks are judged, which hide mistakes that are small on one clip.
    """

    min_iou: float
    relative_error: float
    always: bool = False


CLIP_THRESHOLDS: Mapping[Precision, ClipThresholds] = {
    Precision.FP32: ClipThresholds(min_iou=0.99, relative_error=1e-3, always=True),
    # half precision throughout is 3e-3 off; memories one frame too old are 1.6e-2 off
    Precision.FP16: ClipThresholds(min_iou=0.95, relative_error=1e-2),
    # no tracker was measured in 8 bits yet; a prompted mask remembered as if it had been tracked,
    # which must not pass, is 8e-2 off and leaves an IoU of 0.905
    Precision.INT8: ClipThresholds(min_iou=0.92, relative_error=5e-2),
}


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames (n, H, W, 3) uint8, a point (x, y) on the object in the first, PyTorch's answers.

    `logits` (n, 4g, 4g) float32 are those of the low-resolution masks.
    """

    frames: NDArray[np.uint8]
    point: tuple[float, float]
    logits: NDArray[np.float32]

    @classmethod
    def of(cls, reference: Reference) -> Clip:
        """Take it out of a reference; raises `BundleError` if there is none that fits together."""
        frames, point, logits = (
            reference.array(f"clip/{name}") for name in ("frames", "point", "logits")
        )
        fits = (
            frames.dtype == np.uint8
            and frames.ndim == _FRAME_RANK
            and frames.shape[3] == 3
            and len(frames) > 0
            and logits.dtype == np.float32
            and logits.ndim == 3
            and len(logits) == len(frames)
            and point.shape == (2,)
            and bool(np.isfinite(logits).all())
        )
        if not fits:
            raise BundleError("the clip of the reference file is not one of frames and masks")
        return cls(frames, (float(point[0]), float(point[1])), logits)


def track(
    stages: Mapping[str, Runner], frames: NDArray[np.uint8], point: tuple[float, float]
) -> NDArray[np.float32]:
    """Track what `point` of the first frame is on; returns mask logits (n, 4g, 4g).

    Raises `EngineError` if a stage fails or returns what is not finite.
    """
    tracker = Tracker(stages)
    first = tracker.prompt(0, frames[0], Prompt(1, points=(point,), labels=(1,)))
    rest = [tracker.track(index, frames[index]) for index in range(1, len(frames))]
    return np.stack([frame.logits[0] for frame in (first, *rest)])


def check_clips(
    bundle: Bundle, *, threads: int = 1, progress: Progress = lambda step, done, total: None
) -> Iterator[ClipParity]:
    """Play every clip that the manifest has again; the files are taken to be unchanged.

    Raises `BundleError` if the reference or the artifacts of a clip are missing.
    """
    clips = bundle.manifest.clips
    if not clips:
        return
    clip = Clip.of(Reference.load(bundle.path / bundle.manifest.reference))
    for number, stated in enumerate(clips, start=1):
        progress(f"clip as {stated.format}-{stated.precision}", number, len(clips))
        artifacts = [
            artifact
            for artifact in bundle.manifest.artifacts
            if (artifact.format, artifact.precision) == (stated.format, stated.precision)
        ]
        yield check_clip(artifacts, bundle.path, clip, basis=stated.basis, threads=threads)


def check_clip(
    artifacts: list[Artifact], folder: Path, clip: Clip, *, basis: Basis, threads: int = 1
) -> ClipParity:
    """Track the clip with the artifacts (of one format and precision) of all stages; judge it.

    What no engine here can run is `NOT_EXECUTED`; what an engine refuses is `FAILED`.

    Raises `BundleError` if a stage has no artifact.
    """
    by_stage = {artifact.stage: artifact for artifact in artifacts}
    if lacking := [stage for stage in STAGES if stage not in by_stage]:
        raise BundleError(f"{folder}: no artifact to track a clip with: {', '.join(lacking)}")
    one = by_stage[STAGES[0]]
    verdict = ClipParity(
        format=one.format,
        precision=one.precision,
        status=ParityStatus.NOT_EXECUTED,
        basis=basis,
        reason=f"no engine for {one.format} here",
    )
    engines = engines_for(one.format)
    if not engines:
        return verdict
    try:
        with ExitStack() as opened:
            sessions = {
                stage: opened.enter_context(
                    open_session(engines[0], folder / a.path, a.inputs, a.outputs, threads)
                )
                for stage, a in by_stage.items()
            }
            logits = track(sessions, clip.frames, clip.point)
    except EngineError as error:
        changes = {"status": ParityStatus.FAILED, "engine": engines[0], "reason": str(error)}
        return verdict.model_copy(update=changes)
    return judge(verdict.model_copy(update={"engine": engines[0]}), clip.logits, logits)


def judge(
    verdict: ClipParity, expected: NDArray[np.float32], got: NDArray[np.float32]
) -> ClipParity:
    """Fill a verdict's figures and status from PyTorch's logits (n, 4g, 4g) and an artifact's."""
    ious, limits = mask_ious(expected, got), CLIP_THRESHOLDS[verdict.precision]
    error, worst = logit_difference(expected, got), min(ious)
    reasons = []
    if verdict.basis == "masks" and not worst >= limits.min_iou:
        reasons.append(f"mask IoU {worst:.3f} on frame {ious.index(worst)} under {limits.min_iou}")
    if (limits.always or verdict.basis == "logits") and not error <= limits.relative_error:
        limit = f"{limits.relative_error:.0e}"
        reasons.append(f"mask logits: relative error {error:.1e} over {limit}")
    figures = {
        "status": ParityStatus.FAILED if reasons else ParityStatus.OK,
        "frames": len(ious),
        "ious": tuple(ious),
        "min_iou": worst,
        "mean_iou": float(np.mean(ious)),
        "drift": drift(ious),
        "relative_error": error,
        "reason": "; ".join(reasons) or None,
    }
    return verdict.model_copy(update=figures)


def basis_of(logits: NDArray[np.float32], *, random_weights: bool) -> Basis:
    """What can be judged: masks say nothing where the weights are random or all are empty."""
    return "logits" if random_weights or not (logits > 0).any() else "masks"


def mask_ious(expected: NDArray[np.float32], got: NDArray[np.float32]) -> list[float]:
    """Intersection over union of the masks (logits above 0) of each frame; 1 if both are empty."""
    ious = []
    for one, other in zip(expected > 0, got > 0, strict=True):
        union = int((one | other).sum())
        ious.append(int((one & other).sum()) / union if union else 1.0)
    return ious


def logit_difference(expected: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    """Largest difference of a frame over the range of its expected logits (or their magnitude)."""
    shares = [
        float(np.abs(other - one).max() / (np.ptp(one) or np.abs(one).max() or 1.0))
        for one, other in zip(expected.astype(np.float64), got.astype(np.float64), strict=True)
    ]
    return max(shares)


def drift(ious: list[float]) -> float:
    """Mean of the last third minus mean of the first: below 0 where agreement wears off."""
    third = max(1, len(ious) // 3)
    return float(np.mean(ious[-third:]) - np.mean(ious[:third]))

"""The second half of `phoneward demo`: an object through a clip, on every engine that runs here."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoneward.apps.cli.output import print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from phoneward.bundle import Bundle
    from phoneward.export.request import ExportRequest

    Masks = list[NDArray[np.bool_]]

MODEL = "efficienttam_nano"
POINT = "0:38,219"
"""The object of the clip, on its first frame."""


@dataclass(frozen=True)
class Tracked:
    """What one engine did: `agreement` is its masks' mean IoU with the first engine's, 0 to 1."""

    format: str
    engine: str
    frames: int
    agreement: float
    overlay: Path

    def as_json(self) -> dict[str, Any]:
        """Return it as the demo's JSON has it."""
        return {
            "format": self.format,
            "engine": self.engine,
            "frames": self.frames,
            "agreement": self.agreement,
            "overlay": str(self.overlay.absolute()),
        }


def clip() -> Path:
    """Return the video that ships with Phoneward."""
    return Path(str(resources.files("phoneward.export") / "photos" / "clip.mp4"))


def tracking_request() -> ExportRequest:
    """Every format in single precision, for which there is an engine on every machine."""
    from phoneward.export.backends import BACKENDS
    from phoneward.export.request import make_request
    from phoneward.names import Precision

    return make_request(MODEL, "pretrained", (), tuple(BACKENDS), [Precision.FP32])


def check_places(bundle: Path, tracks: Path, *, force: bool) -> None:
    """Check, before any work, that both may be written.

    Raises `OutputExists`, or what else is said of a folder that is not ours.
    """
    from phoneward.export.backends import BACKENDS
    from phoneward.runtime.outputs import TRACKS
    from phoneward.staging import check_replaceable

    check_replaceable(bundle, force=force)
    for format_name in BACKENDS:
        TRACKS.check_free(tracks / format_name, force=force)


def track_everywhere(
    bundle: Bundle, output: Path, progress: Callable[[str, int, int], None]
) -> tuple[Tracked, ...]:
    """Track the clip's object with the artifacts of each format; writes an overlay for each.

    Earlier ones in `output` are replaced: `check_places` asked.

    Raises what `Tracker.open` raises, `VideoError` or `OutputError`.
    """
    from phoneward.runtime.engines import engines_for

    formats = list(dict.fromkeys(artifact.format for artifact in bundle.manifest.artifacts))
    rows: list[Tracked] = []
    masks: list[Masks] = []
    for format_name in formats:
        if engines_for(format_name):
            row, found = _track(bundle, format_name, output / format_name, progress)
            masks.append(found)
            rows.append(_agreeing(row, masks[0], found))
    return tuple(rows)


def _track(
    bundle: Bundle, format_name: str, folder: Path, progress: Callable[[str, int, int], None]
) -> tuple[Tracked, Masks]:
    from phoneward.apps.cli.prompts import parse_prompts
    from phoneward.apps.cli.tracking import Run
    from phoneward.quiet import noise_to
    from phoneward.runtime.frames import open_frames
    from phoneward.runtime.outputs import OVERLAY, TrackFolder
    from phoneward.runtime.rle import decode
    from phoneward.runtime.tracker import Tracker

    with ExitStack() as stack:
        frames = stack.enter_context(open_frames(clip()))
        stack.enter_context(noise_to(Path(os.devnull)))
        tracker = stack.enter_context(Tracker.open(bundle, format_name=format_name, threads=2))
        engine = str(tracker.engine)
        about = {"video": clip().name, "bundle": str(bundle.path), "engine": engine}
        written = TrackFolder(folder, about, force=True)
        run = Run(frames, parse_prompts((POINT,), (), ()), written, progress, keep_rows=True)
        run.play(tracker, realtime=False)
    if run.error is not None:
        raise run.error
    found = [decode(row["objects"][0]["rle"]) for row in run.rows]
    return Tracked(format_name, engine, run.tracked, 1.0, folder / OVERLAY), found


def _agreeing(row: Tracked, first: Masks, found: Masks) -> Tracked:
    from phoneward.runtime.evaluation import region_similarity

    ious = [region_similarity(one, other) for one, other in zip(found, first, strict=True)]
    return replace(row, agreement=sum(ious) / len(ious))


def show(bundle: Bundle, rows: tuple[Tracked, ...]) -> None:
    """Print what each engine did."""
    print(f"{bundle.manifest.model}: {clip().name}, object at {POINT}")
    table = [
        (row.format, row.engine, row.frames, f"{row.agreement:.3f}", row.overlay) for row in rows
    ]
    columns = ("format", "engine", "frames", "IoU with the first", "overlay")
    print_table("One object through a clip, on every engine here", columns, table)
    print(f"Next: phoneward track {bundle.path} YOUR_VIDEO.mp4 --point 0:X,Y -o tracked")

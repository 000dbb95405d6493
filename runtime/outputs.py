"""What tracking leaves: a folder with overlay.mp4, masks/<object>/<frame>.png and track.json."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from PIL import Image

from phoneward.errors import EngineError, NotATrack, OutputError, OutputExists, PhonewardError
from phoneward.runtime.overlay import OverlayVideo, draw
from phoneward.runtime.rle import encode

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

    from phoneward.runtime.frames import Frame
    from phoneward.runtime.tracker import TrackedFrame

TRACK, OVERLAY, MASKS = "track.json", "overlay.mp4", "masks"
SCHEMA = "phoneward-track-1"
_ROWS, _NEW = "track.rows", "track.json.new"  # what track.json is made of in the end
_OURS = frozenset({TRACK, OVERLAY, MASKS, _ROWS, _NEW})
_UNFINISHED = "tracking was not ended"


def row_of(frame: Frame, tracked: TrackedFrame) -> dict[str, Any]:
    """Return the result for a frame as JSON has it.

    `time_s` is that of the source, `timings_ms` by stage; of each object `present` (score above
    0), `score` (a logit), `iou` (the model's estimate), `bbox` (x, y, width, height in pixels, all
    0 for an empty mask), `area` in pixels, and the mask as COCO's compressed run lengths.

    Raises:
        EngineError: a number is not finite.
    """
    objects = []
    for position, object_id in enumerate(tracked.object_ids):
        mask, score = tracked.masks[position], float(tracked.scores[position])
        iou = float(tracked.ious[position])
        if not (math.isfinite(score) and math.isfinite(iou)):
            raise EngineError(f"frame {frame.index}: the score of object {object_id} is not finite")
        objects.append(
            {
                "object": object_id,
                "present": score > 0,
                "score": score,
                "iou": iou,
                "bbox": bbox_of(mask),
                "area": int(mask.sum()),
                "rle": encode(mask),
            }
        )
    return {
        "frame": frame.index,
        "time_s": frame.time,
        "objects": objects,
        "timings_ms": {stage: float(value) for stage, value in tracked.timings.items()},
    }


def bbox_of(mask: NDArray[np.bool_]) -> list[int]:
    """Return [x, y, width, height] around a mask (H, W); all 0 if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return [0, 0, 0, 0]
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]


def check_free(folder: Path, *, force: bool = False) -> None:
    """Check that the results of tracking may be written to `folder`.

    Raises:
        OutputExists: an earlier tracking is there and `force` is false.
        NotATrack: what is there is neither empty nor only of an earlier tracking.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise NotATrack(folder)
    if present := {path.name for path in folder.iterdir()}:
        if not (present <= _OURS and _is_track(folder)):
            raise NotATrack(folder)
        if not force:
            raise OutputExists(folder)


class TrackFolder:
    """Writes the results of tracking, frame by frame, into a new folder.

    The folder is made with the first result, so that bad input leaves none. From then on what was
    tracked is kept, whatever happens: masks are files of their own, and `close` (or the end of the
    `with` block, also by an error, which is named in track.json) completes the video and
    track.json. Only a process that is killed leaves the video without its index and a track.json
    that says so.

    With `force` what an earlier tracking wrote is removed, also not before the first result.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], *, force: bool = False) -> None:
        """Take a folder; `about` is what track.json says first.

        Raises:
            OutputExists, NotATrack: as `check_free`.
        """
        self.folder, self.frames = folder, 0
        self._about = {"schema": SCHEMA, **about}
        self._force = force
        self._video: OverlayVideo | None = None
        self._rows: TextIO | None = None
        check_free(folder, force=force)

    def write(
        self, frame: Frame, tracked: TrackedFrame, row: Mapping[str, Any] | None = None
    ) -> None:
        """Write one frame's results; `row` is what `row_of` says, or that with more to it.

        Raises:
            OutputError: no room, no permission.
            EngineError: as `row_of`.
        """
        row = row if row is not None else row_of(frame, tracked)
        try:
            if self._rows is None or self._video is None:
                self._begin(*frame.pixels.shape[:2])
            self._write_masks(tracked)
            self._write_row(row)
        except OSError as error:
            raise self._translated(error) from error
        if self._video is not None:
            drawn = draw(frame.pixels, tracked.object_ids, tracked.masks)
            self._video.write(drawn, frame.time)
        self.frames += 1

    def close(self, error: str | None = None, **more: Any) -> None:
        """Complete the video and track.json, which names the `error` and what `more` there is.

        Does nothing before the first result, or the second time.
        """
        rows, video, self._rows, self._video = self._rows, self._video, None, None
        try:
            if video is not None:
                video.close()
        except OutputError as failed:
            error = error or str(failed)
            raise
        finally:
            if rows is not None:
                self._finish(rows, {**more, "error": error})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close(str(error) or type(error).__name__)
        except PhonewardError as second:
            raise error from second  # the first one tells more

    def _begin(self, height: int, width: int) -> None:
        check_free(self.folder, force=self._force)
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self.folder / MASKS).mkdir(parents=True, exist_ok=True)
        self._about["size"] = [height, width]
        unfinished = {**self._about, "frames": [], "error": _UNFINISHED}
        (self.folder / TRACK).write_text(json.dumps(unfinished, indent=1), encoding="utf-8")
        self._rows = (self.folder / _ROWS).open("w+", encoding="utf-8")
        self._video = OverlayVideo(self.folder / OVERLAY, height, width)

    def _write_masks(self, tracked: TrackedFrame) -> None:
        for object_id, mask in zip(tracked.object_ids, tracked.masks, strict=True):
            folder = self.folder / MASKS / str(object_id)
            folder.mkdir(exist_ok=True)
            image = Image.fromarray(mask.astype(np.uint8) * 255)
            image.save(folder / f"{tracked.index:05d}.png", compress_level=1)

    def _write_row(self, row: Mapping[str, Any]) -> None:
        if self._rows is not None:
            self._rows.write(json.dumps(row, allow_nan=False) + "\n")
            self._rows.flush()

    def _finish(self, rows: TextIO, end: dict[str, Any]) -> None:
        """Put track.json together from its rows, of which a stream may have many."""
        whole = self.folder / _NEW
        try:
            with rows, whole.open("w", encoding="utf-8") as file:
                rows.seek(0)
                head = json.dumps({**self._about, **end}, indent=1, allow_nan=False)
                file.write(head.removesuffix("\n}") + ',\n "frames": [')
                for number, line in enumerate(rows):
                    file.write(f"{',' if number else ''}\n  {line.rstrip()}")
                file.write("\n ]\n}\n")
            whole.replace(self.folder / TRACK)
            (self.folder / _ROWS).unlink()
        except OSError as error:
            raise self._translated(error) from error

    def _translated(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.folder}: {error.strerror or error}")


def _is_track(folder: Path) -> bool:
    try:
        with (folder / TRACK).open(encoding="utf-8") as file:
            return f'"schema": "{SCHEMA}"' in file.read(200)
    except (OSError, ValueError):
        return False

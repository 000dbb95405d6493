"""What tracking leaves: a folder with overlay.mp4, masks/<object>/<frame>.png and track.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from phoneward.errors import EngineError, OutputError, PhonewardError
from phoneward.runtime.overlay import OverlayVideo, draw, encoder
from phoneward.runtime.result_folder import ResultFolder
from phoneward.runtime.rle import encode

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

    from phoneward.runtime.frames import Frame
    from phoneward.runtime.tracked_frame import TrackedFrame

TRACK, OVERLAY, MASKS = "track.json", "overlay.mp4", "masks"
SCHEMA = "phoneward-track-1"
TRACKS = ResultFolder("track", frozenset({TRACK, OVERLAY, MASKS}), TRACK, SCHEMA)
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


def check_apart(folder: Path, source: Path) -> None:
    """Check that a source of frames is neither the folder for the results nor in it.

    Raises:
        OutputError: it is, and would be removed for the results.
    """
    if not folder.exists():
        return
    place = source.resolve()
    if any(folder.samefile(each) for each in (place, *place.parents)):
        raise OutputError(f"{source} lies in the output folder {folder}; choose another folder")


class TrackFile:
    """Writes track.json, which is whole after every row, however long a stream is.

    A row takes the place of the file's end and is followed by it again. Behind the end are blanks,
    so that there is room for the last one on a disk that is full by then. All methods raise
    OSError.
    """

    _ROOM = 4096

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        """Begin a file that says `about`, without rows, and that tracking was not ended."""
        self._file = path.open("wb", buffering=0)
        self._place, self._rows = 0, 0
        head = json.dumps(about, indent=1, allow_nan=False).removesuffix("\n}")
        try:
            self._append(f'{head},\n "frames": [')
        except OSError:
            self._file.close()
            raise

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row, or, if there is no room for it, leave the file as it was."""
        self._append(f"{',' if self._rows else ''}\n  {json.dumps(row, allow_nan=False)}")
        self._rows += 1

    def close(self, end: Mapping[str, Any]) -> None:
        """End the file with `end`."""
        with self._file:
            self._write(_end(end))

    def _append(self, text: str) -> None:
        unfinished = _end({"error": _UNFINISHED}).ljust(self._ROOM)
        try:
            self._write(text + unfinished)
        except OSError:
            if self._place:
                self._write(unfinished)
            raise
        self._place += len(text.encode())

    def _write(self, text: str) -> None:
        self._file.seek(self._place)
        left = text.encode()
        while left:  # on a full disk only a part is written, and only the next try fails
            left = left[self._file.write(left) :]
        self._file.truncate()


def _end(values: Mapping[str, Any]) -> str:
    return "\n ],\n" + json.dumps(values, indent=1, allow_nan=False).removeprefix("{\n") + "\n"


class TrackFolder:
    """Writes the results of tracking, frame by frame, into a new folder.

    The folder is made with the first result, so that bad input leaves none. From then on what was
    tracked is kept, whatever happens: masks are files of their own, track.json is whole after every
    frame, and `close` (or the end of the `with` block, also by an error, which is named in
    track.json) completes the video. Only a process that is killed, or a full disk, leaves the
    video without its index.

    With `force` what an earlier tracking wrote is removed, also not before the first result.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], *, force: bool = False) -> None:
        """Take a folder; `about` is what track.json says first.

        Raises:
            OutputExists, NotResults: as `TRACKS.check_free`.
            MissingExtra, OutputError: no video can be written here.
        """
        self.folder, self.frames = folder, 0
        self._about = {"schema": SCHEMA, **about}
        self._force = force
        self._video: OverlayVideo | None = None
        self._track: TrackFile | None = None
        TRACKS.check_free(folder, force=force)
        encoder()  # before work is done, and before what is there is removed

    def write(
        self, frame: Frame, tracked: TrackedFrame, row: Mapping[str, Any] | None = None
    ) -> None:
        """Write one frame's results; `row` is what `row_of` says, or that with more to it.

        Raises:
            OutputError: no room, no permission.
            EngineError: as `row_of`.
        """
        row = row if row is not None else row_of(frame, tracked)
        drawn = draw(frame.pixels, tracked.object_ids, tracked.masks)
        try:
            track, video = self._begun(*frame.pixels.shape[:2])
            self._write_masks(tracked)
            video.write(drawn, frame.time)
            track.add(row)
        except OSError as error:
            raise self._translated(error) from error
        self.frames += 1

    def close(self, error: str | None = None, **more: Any) -> None:
        """Complete the video and track.json, which names the `error` and what `more` there is.

        Does nothing before the first result, or the second time.
        """
        track, video, self._track, self._video = self._track, self._video, None, None
        try:
            if video is not None:
                video.close()
        except OutputError as failed:
            error = error or str(failed)
            raise
        finally:
            if track is not None:
                self._end(track, {**more, "error": error})

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

    def _begun(self, height: int, width: int) -> tuple[TrackFile, OverlayVideo]:
        if self._track is None or self._video is None:
            TRACKS.take(self.folder, force=self._force)
            about = {**self._about, "size": [height, width]}
            self._track = TrackFile(self.folder / TRACK, about)
            (self.folder / MASKS).mkdir()
            self._video = OverlayVideo(self.folder / OVERLAY, height, width)
        return self._track, self._video

    def _write_masks(self, tracked: TrackedFrame) -> None:
        for object_id, mask in zip(tracked.object_ids, tracked.masks, strict=True):
            folder = self.folder / MASKS / str(object_id)
            folder.mkdir(exist_ok=True)
            image = Image.fromarray(mask.astype(np.uint8) * 255)
            path = folder / f"{tracked.index:05d}.png"
            try:
                image.save(path, compress_level=1)
            except OSError:
                path.unlink(missing_ok=True)  # half a mask is none
                raise

    def _end(self, track: TrackFile, end: Mapping[str, Any]) -> None:
        try:
            track.close(end)
        except OSError as error:
            raise self._translated(error) from error

    def _translated(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.folder}: {error.strerror or error}")

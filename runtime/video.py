"""Video files to frames through PyAV (FFmpeg)."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.errors import MissingExtra, VideoError
from phoneward.runtime.decoder import Decoder, duration_tag
from phoneward.runtime.frames import Frame, Frames, check_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EMPTY = "holds no frame"


def import_av() -> Any:
    """Import PyAV; raises `MissingExtra` where it is not installed."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingExtra("PyAV, which reads and writes videos,", "video") from error
    return av


def open_video(path: Path) -> Frames:
    """Open a video file; as `open_frames`."""
    av = import_av()
    if path.is_file() and path.stat().st_size == 0:
        raise VideoError(path, f"{_EMPTY}: the file is empty")
    return frames_of(av, path, open_container(av, path, path, {"protocol_whitelist": "file"}))


def frames_of(av: Any, source: Path | str, container: Any, *, live: bool = False) -> Frames:
    """Return the frames of a container's first video stream.

    Of a `live` source damaged frames are left out, as dropped ones are: a camera's cable is none of
    its user's doing, and what comes next is whole.

    Raises:
        VideoError: it has no video stream, or there is no decoder for it.
    """
    try:
        stream = _video_stream(av, source, container)
    except VideoError:
        container.close()
        raise
    # decoders hand out an error where they would otherwise paint over what is missing
    stream.codec_context.options = {"err_detect": "explode"}
    # of several threads over several frames, errors come late and name the wrong frame
    stream.thread_type = "SLICE"
    frames = _frames(Decoder(av, source, container, stream, live))
    if live:
        return Frames(str(source), frames, release=container.close, live=True)
    if isinstance(source, Path) and "mov" in container.format.name and is_fragmented(source):
        return Frames(str(source), frames, release=container.close)
    return Frames(
        str(source),
        frames,
        release=container.close,
        expected=_expected(stream),
        most=stream.frames or None,
    )


def is_fragmented(path: Path) -> bool:
    """Tell whether an mp4 is in fragments, so that its index counts the first one's frames only.

    That is one with a `moof` among its outermost boxes (ISO 14496-12), as recorders write that
    may be cut off at any time.
    """
    place, end = 0, path.stat().st_size
    with path.open("rb") as file:
        while place < end:
            file.seek(place)
            size, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            if kind == b"moof":
                return True
            if size == 1:  # a size of 64 bits follows
                size = int.from_bytes(file.read(8), "big")
            if size < 8:  # 0: to the end of the file
                return False
            place += size
    return False


def open_container(
    av: Any, source: Path | str, file: Path | str, options: dict[str, str], form: str | None = None
) -> Any:
    """Open a file or device with FFmpeg; `source` names it in the `VideoError`."""
    try:
        return av.open(str(file), format=form, options=options)
    except av.FFmpegError as error:
        reason = error.strerror
        if isinstance(error, av.InvalidDataError):
            reason = "not a video that FFmpeg can read"
        elif isinstance(error, av.EOFError):
            reason = _EMPTY
        raise VideoError(source, reason) from error


def _video_stream(av: Any, source: Path | str, container: Any) -> Any:
    cover = av.stream.Disposition.attached_pic  # of a song
    streams = [each for each in container.streams.video if not each.disposition & cover]
    if not streams:
        kinds = ", ".join(sorted({each.type for each in container.streams} - {"video"}))
        raise VideoError(source, f"has no video stream, only {kinds}" if kinds else _EMPTY)
    if streams[0].codec_context is None:
        raise VideoError(source, "no decoder for its video stream")
    return streams[0]


def _frames(decoder: Decoder) -> Generator[Frame, None, None]:
    source, shape, index, start, before = decoder.source, None, 0, 0.0, -1.0
    for picture in decoder.pictures():
        time = decoder.time(picture, index)
        if shape is None:
            start = time
        frame = Frame(index, time - start, _pixels(source, picture))
        shape = shape or frame.pixels.shape
        check_size(source, frame, shape)
        if frame.time <= before:
            told = f"{before:.3f} to {frame.time:.3f} s"
            raise VideoError(source, f"time does not go on at frame {index}: {told}")
        before = frame.time
        yield frame
        index += 1
    if index == 0:
        raise VideoError(source, _EMPTY)


def _expected(stream: Any) -> int | None:
    if stream.frames:
        return int(stream.frames)
    seconds = duration_tag(stream.metadata)
    if seconds is None and stream.duration is not None:
        seconds = float(stream.duration * stream.time_base)
    if seconds is None or not stream.average_rate:
        return None
    return max(1, round(seconds * float(stream.average_rate)))


def _pixels(source: Path | str, picture: Any) -> NDArray[np.uint8]:
    pixels = picture.to_ndarray(format="rgb24")
    try:
        matrix = picture.side_data.get("DISPLAYMATRIX")
    except ValueError as error:
        # beside data that PyAV does not know, as EXIF, it hands out no matrix, but the angle
        if picture.rotation % 90:
            raise VideoError(source, f"is shown at {picture.rotation} degrees") from error
        return np.ascontiguousarray(np.rot90(pixels, picture.rotation // 90))
    if matrix is None:
        return np.asarray(pixels, np.uint8)
    return upright(source, pixels, np.frombuffer(bytes(matrix), np.int32).reshape(3, 3))


def upright(
    source: Path | str, pixels: NDArray[np.uint8], matrix: NDArray[np.int32]
) -> NDArray[np.uint8]:
    """Turn and mirror pixels (H, W, 3) by a display matrix of ISO 14496-12 (tkhd).

    A point (x, y) is shown at (a x + c y, b x + d y), where a, b and c, d are the beginnings of
    the matrix's first two rows.

    Raises:
        VideoError: the matrix does more than to turn by quarters and to mirror.
    """
    (a, b), (c, d) = (matrix[:2, :2] / 65536).tolist()
    if {abs(a), abs(d)} == {1.0} and b == c == 0:
        right, down = a, d
    elif {abs(b), abs(c)} == {1.0} and a == d == 0:
        pixels, right, down = pixels.swapaxes(0, 1), c, b
    else:
        raise VideoError(
            source, f"is shown under a matrix {a:g} {b:g} {c:g} {d:g}: no quarter turn"
        )
    return np.ascontiguousarray(pixels[:: int(down), :: int(right)])

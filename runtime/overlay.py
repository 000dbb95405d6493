"""Masks drawn over frames, and the video of them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.errors import OutputError
from phoneward.runtime.video import import_av

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILL = 0.4
_GOLDEN = 0.618033988749895
# encoder, options, units of time in a second: MPEG-4 part 2 counts in 16 bits
_ENCODERS: tuple[tuple[str, dict[str, str], int], ...] = (
    ("libx264", {"preset": "veryfast", "crf": "20"}, 90000),
    ("h264_videotoolbox", {"q": "60"}, 90000),
    ("libopenh264", {}, 90000),
    ("mpeg4", {"qscale": "3"}, 60000),
)


def color_of(object_id: int) -> tuple[int, int, int]:
    """Return the RGB color of an object: always the same, and far from its neighbors' in hue."""
    hue = (object_id * _GOLDEN) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw(
    pixels: NDArray[np.uint8], object_ids: Sequence[int], masks: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return a copy of `pixels` (H, W, 3) with masks (n, H, W) filled and outlined.

    The outline lies inside the mask and is a 270th of the frame's shorter side thick.
    """
    drawn = pixels.copy()
    thickness = max(1, round(min(pixels.shape[:2]) / 270))
    for object_id, mask in zip(object_ids, masks, strict=True):
        rows, columns = _around(mask)
        inside, part = mask[rows, columns], drawn[rows, columns]
        color = np.array(color_of(object_id), np.uint8)
        # a table a channel: the blend of every brightness with the color
        shades = np.arange(256)[:, None] * (1 - FILL) + color * FILL
        table = shades.round().astype(np.uint8)
        for channel in range(3):
            layer = part[:, :, channel]
            np.copyto(layer, table[:, channel][layer], where=inside)
        part[outline(inside, thickness)] = color
    return drawn


def _around(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns of a mask with one around them, as far as the frame goes."""
    first = []
    for axis in (1, 0):
        marked = np.flatnonzero(mask.any(axis=axis))
        first.append(slice(max(0, marked[0] - 1), marked[-1] + 2) if marked.size else slice(0, 0))
    return first[0], first[1]


def outline(mask: NDArray[np.bool_], thickness: int) -> NDArray[np.bool_]:
    """Return the pixels of a mask (H, W) that are within `thickness` steps of one outside it.

    What lies beyond the frame counts as the mask, so that an object that is cut off has no edge
    there.
    """
    if not mask.size:
        return mask
    inner = mask
    for _ in range(thickness):
        padded = np.pad(inner, 1, mode="edge")
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def encoder() -> tuple[str, dict[str, str], int]:
    """Return the encoder to use here, its options, and its units of time in a second.

    Raises:
        MissingExtra: PyAV is not installed.
        OutputError: its FFmpeg has no encoder for mp4.
    """
    av = import_av()
    for name, options, units in _ENCODERS:
        try:
            av.codec.Codec(name, "w")
        except ValueError:  # PyAV's answer to an unknown codec
            continue
        return name, options, units
    raise OutputError("FFmpeg has no encoder for mp4 here")


class OverlayVideo:
    """Writes an mp4 (H.264 where FFmpeg has an encoder, else MPEG-4), at its frames' own times.

    Times are kept to 1/90000 s. Odd sizes are padded by one row or column of the edge, as
    yuv420p needs.
    """

    def __init__(self, path: Path, height: int, width: int) -> None:
        self.path = path
        self._av = import_av()
        self._padding = ((0, height % 2), (0, width % 2), (0, 0))
        name, options, self._units = encoder()
        self._last = -1
        try:
            self._container = self._av.open(str(path), "w", format="mp4")
            self._stream = self._container.add_stream(name, options=options)
        except (self._av.FFmpegError, OSError) as error:
            raise self._translated(error) from error
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, self._units)

    def write(self, pixels: NDArray[np.uint8], time: float) -> None:
        """Append a frame (H, W, 3) that is shown from `time`, in seconds, on.

        Raises:
            OutputError: it cannot be written, or does not come after the one before.
        """
        pts = round(time * self._units)
        if pts <= self._last:
            raise OutputError(f"{self.path}: a frame at {time:.6f} s does not come after the last")
        padded = np.ascontiguousarray(np.pad(pixels, self._padding, mode="edge"))
        frame = self._av.VideoFrame.from_ndarray(padded, format="rgb24")
        frame.pts, frame.time_base = pts, Fraction(1, self._units)
        self._encode(frame)
        self._last = pts

    def close(self) -> None:
        """Write what is still in the encoder, and the index; raises `OutputError`."""
        try:
            if self._last >= 0:
                self._encode(None)
        finally:
            try:
                self._container.close()
            except (self._av.FFmpegError, OSError) as error:
                raise self._translated(error) from error

    def _encode(self, frame: Any) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (self._av.FFmpegError, OSError) as error:
            raise self._translated(error) from error

    def _translated(self, error: Any) -> OutputError:
        return OutputError(f"cannot write {self.path}: {error.strerror or error}")

"""Frames, upright and at their source's size, from a video file, a folder of images or a camera."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phoneward.closing import Closing
from phoneward.errors import VideoError
from phoneward.runtime.images import load_image

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from numpy.typing import NDArray

ASSUMED_RATE = 30.0
CAMERA = re.compile(r"camera:(\d+)")
_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a source.

    Attributes:
        index: 0 for the first frame.
        time: seconds from the first frame, as the source tells them.
        pixels: uint8 of shape (H, W, 3), RGB, upright.
    """

    index: int
    time: float
    pixels: NDArray[np.uint8]


class Frames(Closing):
    """An iterator over the frames of a source, once; a context manager that closes the source.

    Attributes:
        source: what the frames come from, for messages.
        expected: how many frames there are, as far as the source tells; None: it does not.
        most: there are surely not more frames than this; None: nobody knows.
        live: the source does not wait, as a camera.
    """

    def __init__(
        self,
        source: str,
        frames: Generator[Frame, None, None],
        *,
        release: Callable[[], None] | None = None,
        expected: int | None = None,
        most: int | None = None,
        live: bool = False,
    ) -> None:
        self.source, self.expected, self.most, self.live = source, expected, most, live
        self._frames, self._release = frames, release

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def close(self) -> None:
        """Close the source, unless another thread is waiting for a frame of it."""
        if inspect.getgeneratorstate(self._frames) == inspect.GEN_RUNNING:
            return
        self._frames.close()
        if self._release is not None:
            self._release()


def open_frames(source: Path | str, *, rate: float = ASSUMED_RATE) -> Frames:
    """Open a video file, a folder of jpg, png and webp images, one such image, or `camera:N`.

    Images come in natural order of their names (`2.png` before `10.png`), `rate` of them a
    second, upright as their EXIF says. A video's rotation is applied; its pixels are not stretched
    to be square.

    Every frame that is whole is handed out before an error is raised.

    Raises:
        VideoError: here, if the source cannot be opened; while iterating, if it holds no frame, is
            cut or damaged, or its frames change their size.
        ImageError: while iterating, if an image cannot be read.
        MissingExtra: PyAV, which videos and cameras need, is not installed.
    """
    if match := CAMERA.fullmatch(str(source)):
        from phoneward.runtime.camera import open_camera

        return open_camera(int(match[1]))
    path = Path(source)
    if path.is_dir():
        return _open_folder(path, rate)
    if not path.exists():
        raise VideoError(path, "no such file or folder")
    if path.suffix.lower() in _IMAGES:
        return _of_images(path, [path], rate)
    from phoneward.runtime.video import open_video

    return open_video(path)


def check_size(source: Path | str, frame: Frame, shape: tuple[int, ...]) -> None:
    """Raise `VideoError` if a frame's array has another shape than the first one's."""
    if frame.pixels.shape != shape:
        (height, width), (rows, columns) = shape[:2], frame.pixels.shape[:2]
        raise VideoError(
            source, f"frame {frame.index} is {columns}x{rows}, those before are {width}x{height}"
        )


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which numbers inside names count by value."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(p), p) if p.isdecimal() else (1, 0, p.casefold()) for p in parts)


def _open_folder(folder: Path, rate: float) -> Frames:
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _IMAGES and not path.name.startswith(".")
    ]
    if not files:
        raise VideoError(folder, "holds no frame: no jpg, png or webp image is in it")
    files.sort(key=lambda path: (natural_key(path.name), path.name))
    return _of_images(folder, files, rate)


def _of_images(source: Path, files: list[Path], rate: float) -> Frames:
    if not rate > 0:
        raise VideoError(source, f"{rate:g} frames a second are not a rate")
    count = len(files)
    return Frames(str(source), _images(source, files, rate), expected=count, most=count)


def _images(source: Path, files: list[Path], rate: float) -> Generator[Frame, None, None]:
    shape = None
    for index, path in enumerate(files):
        frame = Frame(index, index / rate, np.asarray(load_image(path)))
        shape = shape or frame.pixels.shape
        check_size(source, frame, shape)
        yield frame

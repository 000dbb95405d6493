"""Child process: track a long stream with a bundle, and see how much memory the process takes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from phoneward.apps.bench.child import serve
from phoneward.apps.bench.turns import held
from phoneward.bundle import Bundle
from phoneward.errors import PhonewardError
from phoneward.runtime.images import load_image
from phoneward.runtime.prompts import Prompt
from phoneward.runtime.tracker import Tracker
from phoneward.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_STATM = Path("/proc/self/statm")
_STEP = 3  # pixels that the picture moves from frame to frame


class StreamJob(Spec):
    """Track `frames` frames, the first of them prompted, and look every `every` frames.

    `picture` is an image file, which moves; `lock` is held, shared, between looks.
    """

    bundle: str
    engine: str
    picture: str
    frames: Annotated[int, Field(ge=2)]
    every: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    lock: str | None = None


class Look(Spec):
    """After `frames` frames: the process's resident memory, and what the tracker's state takes."""

    frames: int
    resident_bytes: int
    state_bytes: int


class StreamRun(Spec):
    """A whole stream.

    `milliseconds` is the mean time of a frame by the clock, whatever else the machine did or
    stopped meanwhile: no measurement of speed.
    """

    looks: tuple[Look, ...]
    milliseconds: float


def track(job: StreamJob) -> StreamRun:
    """Track as `phoneward track` does, and look at the process."""
    looks = []
    lock = Path(job.lock) if job.lock else None
    picture = np.asarray(load_image(Path(job.picture)), np.uint8)
    height, width, _ = picture.shape
    seconds, done = 0.0, 0
    with Tracker.open(Bundle.open(Path(job.bundle)), engine=job.engine, threads=job.threads) as one:
        middle = Prompt(1, points=((width / 2, height / 2),), labels=(1,))
        for chunk in _chunks(job.frames, job.every):
            with held(lock, exclusive=False):
                started = time.perf_counter()
                for index in chunk:
                    pixels = _frame(picture, index)
                    if index:
                        one.track(index, pixels)
                    else:
                        one.prompt(index, pixels, middle)
                seconds += time.perf_counter() - started
            done += len(chunk)
            state = sum(array.nbytes for array in one.state().values())
            looks.append(Look(frames=done, resident_bytes=resident(), state_bytes=state))
            time.sleep(0.05 if lock else 0)  # lets whoever waits for the lock have it
    return StreamRun(looks=tuple(looks), milliseconds=1e3 * seconds / done)


def resident() -> int:
    """Bytes of this process in physical memory; raises `PhonewardError` where unknown."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except OSError as error:
        raise PhonewardError("resident memory is read from /proc, which is Linux's") from error
    return pages * os.sysconf("SC_PAGE_SIZE")


def _chunks(frames: int, every: int) -> Iterator[range]:
    for start in range(0, frames, every):
        yield range(start, min(start + every, frames))


def _frame(picture: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
    return np.roll(picture, (_STEP * index, 2 * _STEP * index), axis=(0, 1))


if __name__ == "__main__":
    serve(StreamJob, track)

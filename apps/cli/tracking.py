"""The course of `phoneward track`: frame by frame or in real time, until the end or an error."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

from phoneward.errors import Interrupted, OutputError, PhonewardError, VideoError

if TYPE_CHECKING:
    from phoneward.runtime.follow import Follower, PromptAt, Tracks
    from phoneward.runtime.frames import Frame, Frames
    from phoneward.runtime.outputs import TrackFolder
    from phoneward.runtime.stream import StreamReport
    from phoneward.runtime.tracked_frame import TrackedFrame


@dataclass
class Run:
    """One tracking, and what came of it; an error on the way is kept in `error`."""

    frames: Frames
    prompts: tuple[PromptAt, ...]
    folder: TrackFolder | None
    progress: Callable[[str, int, int], None]
    keep_rows: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    tracked: int = 0
    seconds: float = 0.0
    stream: StreamReport | None = None
    error: PhonewardError | None = None
    _began: float = 0.0

    def play(self, tracker: Tracks, *, realtime: bool) -> None:
        """Track all frames and write the results.

        An error after the first result is kept, for the results that come before it are to be
        told too; one before it is raised.
        """
        from phoneward.runtime.follow import Follower

        follower = Follower(tracker, self.prompts, late=realtime)
        self._began = time.perf_counter()
        try:
            with interrupt_asked() as asked:
                if realtime:
                    self._play_stream(follower, asked)
                else:
                    self._play_all(follower, asked)
            self._check_end(follower, interrupted=asked())
        except PhonewardError as error:
            self.error = error
        except BaseException as error:
            self._close(f"{type(error).__name__}: {error}")
            raise
        self._close(str(self.error) if self.error else None)
        if self.error is not None and not self.tracked:
            raise self.error

    def _play_all(self, follower: Follower, asked: Callable[[], bool]) -> None:
        for frame in self.frames:
            result = follower(frame)
            self._report(frame.index + 1)
            if result is not None:
                self._take(frame, result)
            if asked():
                return

    def _play_stream(self, follower: Follower, asked: Callable[[], bool]) -> None:
        from phoneward.runtime.stream import Stream

        stream = Stream(self.frames, stopped=asked)
        try:
            with stream:
                stream.run(follower, self._take)
        finally:
            self.stream = stream.report()

    def _take(self, frame: Frame, tracked: TrackedFrame, latency: float | None = None) -> None:
        from phoneward.runtime.outputs import row_of

        row = row_of(frame, tracked)
        if latency is not None:
            row["latency_ms"] = latency
        if self.folder is not None:
            self.folder.write(frame, tracked, row)
        if self.keep_rows:
            self.rows.append(row)
        self.tracked += 1
        self.seconds = time.perf_counter() - self._began
        if latency is not None:
            self._report(frame.index + 1)

    def _report(self, done: int) -> None:
        rate = f"{self.tracked / self.seconds:.1f} frames/s" if self.seconds else "tracking"
        self.progress(rate, done, max(done, self.frames.expected or 0))

    def _check_end(self, follower: Follower, *, interrupted: bool) -> None:
        if interrupted and self.frames.live and self.tracked:
            return  # how a camera is meant to end
        if interrupted:
            raise Interrupted("interrupted")
        follower.end()
        if not self.tracked:
            raise VideoError(self.frames.source, "no frame could be tracked")

    def _close(self, error: str | None) -> None:
        if self.folder is None:
            return
        more = {"stream": as_json(self.stream)} if self.stream is not None else {}
        try:
            self.folder.close(error, **more)
        except OutputError as failed:
            self.error = self.error or failed


@contextmanager
def interrupt_asked() -> Iterator[Callable[[], bool]]:
    """Let the first SIGINT or SIGTERM only be noted; yields whether there was one.

    The frame at work is finished and everything is closed. A second signal ends the process as
    ever.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    asked = False

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: asked
    finally:
        restore()


def as_json(report: StreamReport) -> dict[str, Any]:
    """Return a stream's report with its rate, frames a second."""
    return {**asdict(report), "rate": report.rate}

"""Frames as they come: a thread reads the source, a bounded queue drops what comes too fast.

The consumer stays in its own thread. It meets the source's errors there, behind the frames that
came before them, and the thread has ended when the stream is closed, however that came about.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from phoneward.errors import VideoError

if TYPE_CHECKING:
    from typing_extensions import Self

    from phoneward.runtime.frames import Frame, Frames

Result = TypeVar("Result")

_POLL = 0.05  # seconds; a signal handler can end no wait, only say that it should end
_PATIENCE = 5.0  # seconds for a source to come back from a read


@dataclass(frozen=True, eq=False)
class Captured:
    """A frame, and when it was there to be used, in seconds of `time.perf_counter`."""

    frame: Frame
    at: float


# what to do with a new frame when the queue is full
Policy = Callable[["deque[Captured]", Captured], None]


def drop_oldest(queue: deque[Captured], new: Captured) -> None:
    """Make room in a full queue for what is newest: the shortest delay."""
    queue.popleft()
    queue.append(new)


@dataclass(frozen=True)
class StreamReport:
    """How a stream went.

    Attributes:
        frames: how many had a result.
        dropped: how many were dropped because the consumer was busy.
        seconds: from the first of these results to the last.
        latency_ms: percentiles 50, 90 and 99 of the time from a frame's capture to its result,
            by name (`p50` ...); empty without a result.
        jitter_ms: standard deviation of the same.
    """

    frames: int
    dropped: int
    seconds: float
    latency_ms: dict[str, float]
    jitter_ms: float

    @property
    def rate(self) -> float:
        """Results a second; 0 if there are not two."""
        return (self.frames - 1) / self.seconds if self.frames > 1 and self.seconds > 0 else 0.0


class Stream:
    """A context manager that reads `frames` in a thread while it is open, and closes them.

    A source that is not `live` is paced by its frames' times, from the first one on.
    """

    def __init__(
        self,
        frames: Frames,
        capacity: int = 1,
        *,
        policy: Policy = drop_oldest,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take a source; iteration ends early once `stopped()` is true."""
        if capacity < 1:
            raise ValueError(f"a queue for {capacity} frames")
        self.dropped = 0
        self._frames, self._capacity = frames, capacity
        self._policy, self._stopped = policy, stopped
        self._queue: deque[Captured] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: Exception | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._read, name="frames", daemon=True)
        self._latencies, self._results = array("d"), array("d", [0.0, 0.0])

    def run(
        self,
        consume: Callable[[Frame], Result | None],
        emit: Callable[[Frame, Result, float], None],
    ) -> None:
        """Give each frame to `consume`, and what it returns, unless None, to `emit`.

        `emit` gets the latency too, in milliseconds, from the capture to when `consume` returned.

        Raises:
            VideoError and whatever else the source, `consume` or `emit` raise.
        """
        for captured in self:
            result = consume(captured.frame)
            if result is None:
                continue
            now = time.perf_counter()
            self._note(captured.at, now)
            emit(captured.frame, result, 1e3 * (now - captured.at))

    def report(self) -> StreamReport:
        """Say how it went until now."""
        values = np.asarray(self._latencies)
        marks = np.percentile(values, (50, 90, 99)) if len(values) else ()
        return StreamReport(
            frames=len(values),
            dropped=self.dropped,
            seconds=self._results[1] - self._results[0],
            latency_ms={f"p{mark}": float(m) for mark, m in zip((50, 90, 99), marks, strict=False)},
            jitter_ms=float(values.std()) if len(values) else 0.0,
        )

    def __iter__(self) -> Iterator[Captured]:
        return self

    def __next__(self) -> Captured:
        with self._changed:
            while not self._queue and not self._ended and not self._stopped():
                self._changed.wait(_POLL)
            if self._stopped():
                raise StopIteration
            if self._queue:
                return self._queue.popleft()
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._thread.join(_PATIENCE)
        if self._thread.is_alive() and error is None:
            raise VideoError(self._frames.source, f"did not stop within {_PATIENCE:g} s")

    def _note(self, captured: float, now: float) -> None:
        if not self._latencies:
            self._results[0] = now
        self._results[1] = now
        self._latencies.append(1e3 * (now - captured))

    def _read(self) -> None:
        error: Exception | None = None
        try:
            with self._frames:
                self._pump()
        except Exception as raised:  # noqa: BLE001 - it is raised again, in the consumer
            error = raised
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()

    def _pump(self) -> None:
        start: float | None = None
        for frame in self._frames:
            if not self._frames.live:
                now = time.perf_counter()
                start = now - frame.time if start is None else start
                self._closing.wait(max(0.0, start + frame.time - now))
            if self._closing.is_set():
                return
            self._put(Captured(frame, time.perf_counter()))

    def _put(self, captured: Captured) -> None:
        with self._changed:
            if len(self._queue) < self._capacity:
                self._queue.append(captured)
            else:
                self._policy(self._queue, captured)
                self.dropped += self._capacity + 1 - len(self._queue)
            self._changed.notify_all()

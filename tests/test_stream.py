"""The real-time loop: pace, drops, latency, errors across threads, and that every thread ends."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterator

import numpy as np
import pytest

from phoneward.errors import EngineError, VideoError
from phoneward.runtime.frames import Frame, Frames
from phoneward.runtime.stream import Captured, Stream, drop_oldest

PIXELS = np.zeros((2, 2, 3), np.uint8)
# seconds: how far clocks may disagree, and how long a busy machine may take over anything
EARLY, LATE = 0.01, 5.0


@pytest.fixture(autouse=True)
def _every_thread_ends() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def source(
    count: int, step: float, *, error: Exception | None = None, live: bool = False, wait: float = 0
) -> tuple[Frames, list[str]]:
    """Frames `step` seconds apart, and a list that says when their source was closed."""
    told: list[str] = []

    def make() -> Generator[Frame, None, None]:
        for index in range(count):
            time.sleep(wait)
            yield Frame(index, index * step, PIXELS)
        if error is not None:
            raise error

    return Frames("made", make(), release=lambda: told.append("closed"), live=live), told


def test_a_quick_consumer_gets_every_frame_at_its_time() -> None:
    """Due half a second apart: a busy machine may be late, but nothing may come early."""
    frames, told = source(4, 0.5)
    came: list[float] = []
    began = time.perf_counter()
    with Stream(frames, 4) as stream:  # room for all, so that being late costs no frame
        stream.run(lambda frame: came.append(time.perf_counter()) or frame, lambda *_: None)
    ended = time.perf_counter()
    report = stream.report()
    assert (report.frames, report.dropped) == (4, 0)
    # the first one sets the pace, and was captured after `began`
    assert all(at - began >= 0.5 * index - EARLY for index, at in enumerate(came))
    assert came[-1] - began < 1.5 + LATE
    assert 0 <= report.latency_ms["p50"] <= report.latency_ms["p90"] <= report.latency_ms["p99"]
    assert report.latency_ms["p99"] < 1e3 * LATE
    # from the first result, before the second frame, to the last one, before the end
    assert 3 / (ended - came[0]) <= report.rate <= 3 / (came[-1] - came[1])
    assert told == ["closed"]


def test_a_slow_consumer_gets_the_newest_and_the_rest_is_counted() -> None:
    """Source and consumer wait for each other, so that what is dropped does not hang on a clock."""
    busy, read = [threading.Event() for _ in range(2)], [threading.Event() for _ in range(2)]

    def make() -> Generator[Frame, None, None]:
        for index in range(30):
            yield Frame(index, 0.0, PIXELS)
            # the next one is asked for: this one is in the queue, or was taken from it
            if index in (9, 29):
                read[index // 29].set()
            if index in (0, 9):
                assert busy[index // 9].wait(LATE)

    seen: list[int] = []
    latencies: list[float] = []

    def consume(frame: Frame) -> int:
        seen.append(frame.index)
        if len(seen) <= 2:
            busy[len(seen) - 1].set()
            assert read[len(seen) - 1].wait(LATE)
        time.sleep(0.05)
        return frame.index

    with Stream(Frames("made", make(), live=True)) as stream:
        stream.run(consume, lambda frame, result, latency: latencies.append(latency))
    report = stream.report()
    assert seen == [0, 9, 29]
    assert (report.frames, report.dropped) == (3, 27)
    assert np.percentile(latencies, 50) == pytest.approx(report.latency_ms["p50"])
    # from the capture on: its own 50 ms, and those of the frame before, for which it waited
    assert latencies[0] >= 50 - 1e3 * EARLY
    assert min(latencies[1:]) >= 100 - 1e3 * EARLY
    assert max(latencies) < 1e3 * LATE


def test_the_policy_by_hand() -> None:
    queue = deque(Captured(Frame(index, 0.0, PIXELS), 0.0) for index in range(2))
    for index in (2, 3):
        drop_oldest(queue, Captured(Frame(index, 0.0, PIXELS), 0.0))
    assert [one.frame.index for one in queue] == [2, 3]


def test_a_policy_of_ones_own() -> None:
    """One that empties the queue: all that it dropped counts."""

    def only_newest(queue: deque[Captured], new: Captured) -> None:
        queue.clear()
        queue.append(new)

    frames, _ = source(20, 0.0, live=True)
    with Stream(frames, 4, policy=only_newest) as stream:
        time.sleep(0.2)
        seen: list[int] = []
        stream.run(lambda frame: seen.append(frame.index), lambda *_: None)
    assert seen[-1] == 19
    assert len(seen) + stream.dropped == 20


def test_a_live_source_is_not_paced() -> None:
    frames, _ = source(5, 100.0, live=True)
    with Stream(frames, 5) as stream:
        assert [captured.frame.index for captured in stream] == list(range(5))


def test_the_sources_error_comes_after_its_frames() -> None:
    frames, told = source(3, 0.0, error=VideoError("made", "cut"), live=True)
    seen: list[int] = []
    stream = Stream(frames, 5)
    with pytest.raises(VideoError, match="made: cut"), stream:
        time.sleep(0.1)  # the error is there before the first frame is asked for
        stream.run(lambda frame: seen.append(frame.index), lambda *_: None)
    assert seen == [0, 1, 2]
    assert told == ["closed"]


def test_the_consumers_error_ends_the_source() -> None:
    frames, told = source(1000, 0.01)

    def fail(frame: Frame) -> None:
        raise EngineError("gave up")

    stream = Stream(frames)
    with pytest.raises(EngineError, match="gave up"), stream:
        stream.run(fail, lambda *_: None)
    assert told == ["closed"]


def test_an_interrupt_in_the_consumer_ends_the_source() -> None:
    frames, told = source(1000, 0.01)

    def interrupt(frame: Frame) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Stream(frames) as stream:
        stream.run(interrupt, lambda *_: None)
    assert told == ["closed"]


def test_stopping_does_not_wait_for_the_next_frame() -> None:
    frames, told = source(3, 60.0)
    asked = threading.Event()
    timer = threading.Timer(0.2, asked.set)  # started by the first frame, while the next is awaited
    began = time.perf_counter()
    with Stream(frames, stopped=asked.is_set) as stream:
        stream.run(lambda frame: timer.start() or frame, lambda *_: None)
    timer.join()
    assert time.perf_counter() - began < 30
    assert stream.report().frames == 1
    assert told == ["closed"]


def test_frames_without_a_result_are_not_measured() -> None:
    frames, _ = source(6, 0.0, live=True)
    emitted: list[int] = []
    with Stream(frames, 6) as stream:
        stream.run(
            lambda frame: frame.index if frame.index > 3 else None,
            lambda frame, result, latency: emitted.append(result),
        )
    assert emitted == [4, 5]
    assert stream.report().frames == 2


def test_a_report_of_nothing() -> None:
    frames, _ = source(0, 0.0)
    with Stream(frames) as stream:
        stream.run(lambda frame: frame, lambda *_: None)
    report = stream.report()
    assert (report.frames, report.dropped, report.latency_ms, report.rate) == (0, 0, {}, 0.0)


def test_a_queue_for_nothing() -> None:
    frames, _ = source(0, 0.0)
    with pytest.raises(ValueError, match="a queue for 0 frames"):
        Stream(frames, 0)

"""Batches made by another process while the step before is under way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from phoneward.closing import Closing
from phoneward.errors import DataError
from phoneward.export.train.clips import open_pool
from phoneward.export.train.tam.batch import Batch, Sampling, draw
from phoneward.export.train.tam.views import Stock

_AHEAD = 3
_stock: Stock | None = None


class Feeder(Closing):
    """The process, and its pool of pictures; a context manager that ends it."""

    def __init__(self, folders: tuple[Path, ...] = ()) -> None:
        # spawned: a fork of a process with PyTorch's threads in it may never come to an end
        self._executor = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_open, initargs=(folders,)
        )

    def close(self) -> None:
        """End the process; what is still waited for is not made."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def ask(self, how: Sampling, key: tuple[int, ...]) -> Future[Batch]:
        """Have a batch made."""
        return self._executor.submit(_draw, how, key)


@dataclass(frozen=True)
class Feed:
    """The batches of one epoch, of `samplings` in turn: (*key, which of them, which turn)."""

    feeder: Feeder
    samplings: tuple[Sampling, ...]
    key: tuple[int, ...]
    steps: int

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        """Yield them in order; raises `DataError` if the process that makes them was killed."""
        try:
            yield from self._made()
        except BrokenProcessPool as error:
            reason = "the process that makes them was killed, perhaps for want of memory"
            raise DataError("clips", f"{reason}; the same command goes on") from error

    def _made(self) -> Iterator[Batch]:
        waiting: deque[Future[Batch]] = deque()
        for step in range(self.steps):
            turn, which = divmod(step, len(self.samplings))
            key = (*self.key, which, turn)
            waiting.append(self.feeder.ask(self.samplings[which], key))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _open(folders: tuple[Path, ...]) -> None:
    global _stock
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training itself says when it ends
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _stock = Stock(open_pool("train", folders=list(folders)))


def _end_with_parent() -> None:
    """Leave when the training was killed; its queue alone would keep this process for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _draw(how: Sampling, key: tuple[int, ...]) -> Batch:
    if _stock is None:
        raise RuntimeError("the pool of pictures is opened when the process begins")
    return draw(_stock, how, key)

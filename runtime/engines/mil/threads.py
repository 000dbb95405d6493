"""PyTorch's threads, of which a process has one number, lent for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

# one borrower at a time: others would take a lent number for the one to restore
_LENT = RLock()


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let PyTorch use `number` threads inside, and as many as before after.

    Python threads that ask at once wait for each other.
    """
    import torch

    with _LENT:
        before = torch.get_num_threads()
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(before)

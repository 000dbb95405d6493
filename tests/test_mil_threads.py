"""PyTorch's number of threads is lent, and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event, Thread

import pytest
import torch

from phoneward.runtime.engines.mil.threads import torch_threads

USUAL = 2


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(USUAL)
    yield
    torch.set_num_threads(before)


def test_the_number_comes_back_also_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), torch_threads(1), torch_threads(3):
        assert torch.get_num_threads() == 3
        _ = 1 / 0
    assert torch.get_num_threads() == USUAL


def test_who_asks_while_it_is_lent_waits_for_the_number_to_come_back() -> None:
    lent, enough = Event(), Event()
    after = []

    def borrow() -> None:
        with torch_threads(1):
            lent.set()
            enough.wait(10)

    def ask() -> None:
        with torch_threads(3):
            pass
        after.append(torch.get_num_threads())

    threads = [Thread(target=borrow), Thread(target=ask)]
    threads[0].start()
    assert lent.wait(10)
    threads[1].start()
    threads[1].join(0.2)
    assert not after
    enough.set()
    for thread in threads:
        thread.join(10)
    assert after == [USUAL]

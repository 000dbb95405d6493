"""Who is measured when: A, B, A, B in every round, the other way round in the next."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

S = TypeVar("S")


def schedule(
    subjects: Sequence[S], rounds: int, group: Callable[[S], Hashable]
) -> Iterator[list[tuple[int, S]]]:
    """Yield the turns that belong together: one round of one group, such as a model's, each.

    Within a group the subjects keep their order in even rounds and reverse it in odd ones, so
    that neither of a pair is always first. Rounds are the outer loop: a slow spell of the
    machine hits one round of every group rather than every round of one.
    """
    groups: dict[Hashable, list[S]] = {}
    for subject in subjects:
        groups.setdefault(group(subject), []).append(subject)
    for number in range(rounds):
        for members in groups.values():
            yield [(number, subject) for subject in (members[::-1] if number % 2 else members)]


def take_turns(
    groups: Iterator[list[tuple[int, S]]], measure: Callable[[int, S], None], lock: Path | None
) -> None:
    """Measure one subject after the other, holding the lock during each group."""
    for group in groups:
        with held(lock, exclusive=True):
            for number, subject in group:
                measure(number, subject)


@contextmanager
def held(lock: Path | None, *, exclusive: bool) -> Iterator[None]:
    """Hold an advisory lock (flock) on a file, for machines that several jobs share."""
    if lock is None:
        yield
        return
    import fcntl

    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield

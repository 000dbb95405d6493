"""Who is measured when: A, B, A, B in every round, the other way round in the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from phoneward.apps.bench.records import Subject

Turn = tuple[int, Subject]


def schedule(subjects: Sequence[Subject], rounds: int) -> Iterator[list[Turn]]:
    """Yield groups of turns that belong together: one round of one model each.

    Within a group the subjects keep their order in even rounds and reverse it in odd ones, so
    that neither of a pair is always first. Rounds are the outer loop: a slow spell of the
    machine hits one round of every model rather than every round of one.
    """
    models = list(dict.fromkeys(subject.model for subject in subjects))
    for number in range(rounds):
        for model in models:
            group = [subject for subject in subjects if subject.model == model]
            yield [(number, subject) for subject in (group[::-1] if number % 2 else group)]


def take_turns(
    groups: Iterator[list[Turn]], measure: Callable[[int, Subject], None], lock: Path | None
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

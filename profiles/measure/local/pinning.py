"""Binding a process to processors."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

from phoneward.errors import PlaceError


def usable_cores() -> tuple[int, ...]:
    """Numbers of the processors that this process may run on."""
    if sys.platform == "linux":
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def check_cores(cores: Collection[int]) -> None:
    """Raise `PlaceError` if a process cannot be bound to these processors here."""
    if not cores:
        return
    if sys.platform != "linux":
        raise PlaceError("host", "processes can be bound to cores only on Linux; leave out --cores")
    usable = usable_cores()
    if missing := sorted(set(cores) - set(usable)):
        raise PlaceError(
            "host",
            f"core {', '.join(map(str, missing))} cannot be used here; "
            f"usable: {', '.join(map(str, usable))}",
        )


def bind(cores: Collection[int]) -> None:
    """Bind this process and the threads it starts from now on; nothing for no cores.

    Raises `PlaceError`.
    """
    check_cores(cores)
    if cores and sys.platform == "linux":
        try:
            os.sched_setaffinity(0, cores)
        except OSError as error:
            raise PlaceError("host", f"cannot be bound to cores: {error.strerror}") from error

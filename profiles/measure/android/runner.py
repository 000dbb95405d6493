"""The programs that time a model on a phone, told apart by what they say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from phoneward.bundle import Artifact
    from phoneward.profiles.measure import Request
    from phoneward.profiles.report.schema import Measured


class RunnerError(Exception):
    """A runner did not print what it should; becomes a `PlaceError` with the phone's name."""


@dataclass(frozen=True)
class Task:
    """One artifact to time.

    `run` runs the runner with arguments and returns all it printed; `model` is the file there.
    """

    artifact: Artifact
    model: str
    request: Request
    run: Callable[[Sequence[str]], str]


class Runner(Protocol):
    """A kind of runner."""

    name: str
    engine: str
    format: str
    log_tag: str | None

    def describes(self, help_text: str) -> bool:
        """Tell whether `--help` printed this runner's help."""
        ...

    def measure(self, task: Task, help_text: str) -> tuple[Measured, str | None]:
        """Time an artifact; return the times and the delegate that was seen at work.

        Raises `RunnerError`.
        """
        ...

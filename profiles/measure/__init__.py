"""Where a bundle can be profiled; one file a place, found by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from phoneward.registry import Entry, Registry
from phoneward.runtime.artifacts import Wanted

if TYPE_CHECKING:
    from phoneward.bundle import Bundle
    from phoneward.profiles.report.schema import LatencyReport


@dataclass(frozen=True)
class Setup:
    """How another machine may be set up to profile there.

    Attributes:
        python: interpreter over there; its installation of Phoneward is taken if it will do.
        bootstrap: whether a virtual environment may be made there if it will not.
        wheelhouse: local folder of wheels to install from, without any network.
    """

    python: str = "python3"
    bootstrap: bool = True
    wheelhouse: Path | None = None


@dataclass(frozen=True)
class Request:
    """What to profile, and how.

    Attributes:
        bundle: opened; its checksums are checked by the place before anything is sent or run.
        wanted: engine, format and precision; what is None is every one that the place can run.
        stages: names of stages; empty: all.
        threads: for each engine.
        cores: processors to bind to; empty: none.
        runs: timed inferences of each stage.
        cold_starts: fresh processes for the time to load; 0: none.
        sustained_s: seconds of uninterrupted inference at the end, for the drift; 0: none.
        op_times: whether per-op times are asked for, in runs of their own.
        frames: frames of a made-up video to track end to end, for a bundle that tracks; 0: none.
        runner: a binary for the device, where the place needs one.
        device: name of the device file that describes the machine, if there is one.
        setup: how another machine may be set up, where the place is one.
    """

    bundle: Bundle
    wanted: Wanted = field(default_factory=Wanted)
    stages: tuple[str, ...] = ()
    threads: int = 1
    cores: tuple[int, ...] = ()
    runs: int = 50
    cold_starts: int = 3
    sustained_s: float = 0.0
    op_times: bool = True
    frames: int = 0
    runner: Path | None = None
    device: str | None = None
    setup: Setup = field(default_factory=Setup)


class Place(Protocol):
    """Profiles on one kind of machine.

    Raises a `PlaceError` that says what happened; then nothing is left running or lying there.
    """

    def __call__(
        self, address: str, request: Request, progress: Callable[[str], None]
    ) -> LatencyReport:
        """Profile at `address` (what follows the place's name); `progress` is told each step."""
        ...


PLACES: Registry[Place] = Registry(
    "place",
    {
        "host": Entry("phoneward.profiles.measure.host:profile"),
        "ssh": Entry("phoneward.profiles.measure.ssh:profile"),
        "adb": Entry("phoneward.profiles.measure.adb:profile"),
        "qemu": Entry("phoneward.profiles.measure.qemu:profile"),
        "ios": Entry("phoneward.profiles.measure.ios:profile"),
    },
)


def split_place(where: str) -> tuple[str, str]:
    """Return the place's name and the address: `qemu:cortex-a76` is `("qemu", "cortex-a76")`.

    Raises:
        UnknownName: there is no such place.
    """
    name, _, address = where.partition(":")
    PLACES.entry(name)
    return name, address.removeprefix("//")

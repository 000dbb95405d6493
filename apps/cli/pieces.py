"""The pieces of the stack: which there are, which are installed, which versions are known good.

Reads package metadata and two data files; imports none of the pieces.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import resources
from typing import Any

from phoneward.toml import parse_toml


class Scope(str, Enum):
    """What an installation is for."""

    EXPORT = "export"
    RUNTIME = "runtime"


class State(str, Enum):
    """How an installed version compares with the known-good one."""

    OK = "ok"
    DIFFERS = "differs"
    MISSING = "missing"


class Need(str, Enum):
    """What a scope asks of a piece; of all `ENGINE` pieces one is enough."""

    REQUIRED = "required"
    ENGINE = "engine"
    OPTIONAL = "optional"


@dataclass(frozen=True)
class Piece:
    """One distribution of the stack, as `pieces.toml` describes it."""

    name: str
    gives: str
    extra: str = ""
    export: Need | None = None
    runtime: Need | None = None
    known_good: str = ""
    known_good_beside: Mapping[str, str] = field(default_factory=dict)

    def need(self, scope: Scope) -> Need | None:
        """What `scope` asks of this piece; None: it has no place there."""
        return self.export if scope is Scope.EXPORT else self.runtime


@dataclass(frozen=True)
class Finding:
    """A piece, and what is installed of it."""

    piece: Piece
    need: Need
    installed: str | None
    known_good: str
    lowest: str = ""  # that Phoneward's own metadata asks for

    @property
    def state(self) -> State:
        """Compare the versions; a local build (`2.9.0+cpu`) counts as the version it builds."""
        if self.installed is None:
            return State.MISSING
        same = self.installed.partition("+")[0] == self.known_good
        return State.OK if same else State.DIFFERS

    @property
    def supported(self) -> bool:
        """Tell whether the runtime takes the version: not too old, nor beyond what goes together.

        A piece with a known-good version of its own beside another one must have its major version.
        """
        if self.installed is None or _release(self.installed) < _release(self.lowest):
            return False
        pinned = self.known_good != known_good_versions().get(self.piece.name, self.known_good)
        return not pinned or _release(self.installed)[:1] == _release(self.known_good)[:1]

    @property
    def install(self) -> str | None:
        """The command that puts it right; None if nothing is wrong."""
        if self.state is State.OK:
            return None
        if self.state is State.DIFFERS:
            return f"pip install '{self.piece.name}=={self.known_good}'"
        extra = f"[{self.piece.extra}]" if self.piece.extra else ""
        return f"pip install 'phoneward{extra}'"


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _lowest_versions() -> dict[str, str]:
    """What the installed package's metadata asks for: normalized names to lowest versions."""
    try:
        needs = importlib.metadata.requires("phoneward") or ()
    except importlib.metadata.PackageNotFoundError:  # used from a folder, not installed
        return {}
    found = (re.match(r"([A-Za-z0-9._-]+)(?:\[.*?\])?[^;]*?>=\s*([0-9.]+)", need) for need in needs)
    return {normalized(match[1]): match[2] for match in found if match}


def load_pieces() -> tuple[Piece, ...]:
    """Read `pieces.toml`."""
    content = resources.files("phoneward.apps.cli").joinpath("pieces.toml").read_bytes()
    return tuple(_piece(row) for row in parse_toml("pieces.toml", content)["piece"])


def _piece(row: dict[str, Any]) -> Piece:
    fields = dict(row)
    fields.update({scope.value: Need(row[scope.value]) for scope in Scope if scope.value in row})
    return Piece(**fields)


def known_good_versions() -> dict[str, str]:
    """Read the packaged constraints: normalized distribution names to versions."""
    lines = resources.files("phoneward").joinpath("constraints.txt").read_text("utf-8").split("\n")
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {normalized(name): version for name, version in pins}


def normalized(name: str) -> str:
    """Spell a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_version(name: str) -> str | None:
    """The installed version, from metadata alone; None: not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def examine(scope: Scope, pieces: Iterable[Piece]) -> list[Finding]:
    """Compare every piece that has a place in `scope` with its known-good version."""
    known = known_good_versions()
    lowest = _lowest_versions()
    listed = [(piece, piece.need(scope), installed_version(piece.name)) for piece in pieces]
    for piece, need, installed in listed:
        if need is not None and installed is not None:
            known.update(piece.known_good_beside)
    return [
        Finding(
            piece,
            need,
            installed,
            piece.known_good or known[piece.name],
            lowest.get(normalized(piece.name), ""),
        )
        for piece, need, installed in listed
        if need is not None
    ]


def failures(scope: Scope, findings: Iterable[Finding]) -> list[str]:
    """Name what keeps the scope from being whole, one line each; empty: nothing does.

    Converters work together at their known-good versions only. The runtime takes ranges, from an
    old board's versions to those of today: there, what differs and is supported is no failure.
    """
    findings = tuple(findings)

    def bad(finding: Finding) -> bool:
        return finding.state is not State.OK and (scope is Scope.EXPORT or not finding.supported)

    wrong = [
        f"{finding.piece.name} {finding.state.value}"
        for finding in findings
        if finding.need is Need.REQUIRED and bad(finding)
    ]
    engines = [finding for finding in findings if finding.need is Need.ENGINE]
    if engines and all(map(bad, engines)):
        names = ", ".join(finding.piece.name for finding in engines)
        at = " at its known-good version" if scope is Scope.EXPORT else ""
        wrong.append(f"no engine{at} (one of {names})")
    return wrong

"""`phoneward doctor`: what is installed here, what is not as tested, and how to put it right."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from phoneward.apps.cli.output import JsonFlag, print_json, print_table
from phoneward.apps.cli.pieces import (
    Finding,
    Scope,
    examine,
    failures,
    installed_version,
    load_pieces,
)

EXAMPLE = "Example: phoneward doctor --for export"

_TESTED_WITH = "Python 3.11, Linux x86_64"


@dataclass(frozen=True)
class _Here:
    """Everything the doctor looked at."""

    scope: Scope
    findings: tuple[Finding, ...]
    engines: tuple[tuple[str, str | None], ...]  # name, why it cannot run here
    cache: Path
    cache_bytes: int

    @property
    def problems(self) -> list[str]:
        return failures(self.scope, self.findings)


def command(
    scope: Annotated[
        Scope | None,
        typer.Option("--for", help="What to check for. Default: export where torch is installed."),
    ] = None,
    ops: Annotated[
        Path | None,
        typer.Option(help="List the ops of this .mlpackage instead, and which are missing here."),
    ] = None,
    emulator: Annotated[
        bool,
        typer.Option(
            "--emulator",
            help="Prepare `profile --on qemu:CPU` instead: download the engines for Arm with pip "
            "(32 MB), and compile.",
        ),
    ] = False,
    json_output: JsonFlag = False,
) -> int:
    """Compare this installation with the versions that are known to work together.

    Reads package metadata only. Exit code 1: something is missing, or, for export, differs from
    the known-good version. For the runtime, which takes ranges, a difference is only shown.
    With --ops: 1 if the engine `mil` lacks an op of the package.
    """
    if ops is not None:
        from phoneward.apps.cli.ops import show_ops

        return show_ops(ops, json_output=json_output)
    if emulator:
        from phoneward.apps.cli.emulator import prepare_emulator

        return prepare_emulator(json_output=json_output)
    here = _look(scope or (Scope.EXPORT if installed_version("torch") else Scope.RUNTIME))
    if json_output:
        print_json(_as_json(here))
    else:
        _print(here)
    return 1 if here.problems else 0


def _look(scope: Scope) -> _Here:
    from phoneward.export.cache import default_root
    from phoneward.runtime.engines import ENGINES, why_not

    cache = default_root()
    return _Here(
        scope=scope,
        findings=tuple(examine(scope, load_pieces())),
        engines=tuple((name, why_not(name)) for name in ENGINES),
        cache=cache,
        cache_bytes=_bytes_in(cache),
    )


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # an export at work moves its files
            total += 0 if path.is_dir() else path.lstat().st_size
    return total


def _as_json(here: _Here) -> dict[str, Any]:
    return {
        "ok": not here.problems,
        "for": here.scope.value,
        "problems": here.problems,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "tested_with": _TESTED_WITH,
        "pieces": [
            {
                "name": finding.piece.name,
                "need": finding.need.value,
                "installed": finding.installed,
                "known_good": finding.known_good,
                "state": finding.state.value,
                "gives": finding.piece.gives,
                "install": finding.install,
            }
            for finding in here.findings
        ],
        "engines": [
            {"name": name, "runs_here": reason is None, "reason": reason}
            for name, reason in here.engines
        ],
        "cache": {"path": str(here.cache), "bytes": here.cache_bytes},
        "install_all": _install_all(here.scope),
    }


def _print(here: _Here) -> None:
    print(f"Python {platform.python_version()} on {platform.platform()}")
    print(f"Known-good versions are those tested with {_TESTED_WITH}.\n")
    columns = ("piece", "installed", "known good", "state", "gives", "to put it right")
    rows = [
        (
            finding.piece.name,
            finding.installed or "",
            finding.known_good,
            finding.state.value,
            finding.piece.gives,
            finding.install or "",
        )
        for finding in here.findings
    ]
    print_table(f"Pieces for {here.scope.value}", columns, rows)
    engines = [(name, "no" if reason else "yes", reason or "") for name, reason in here.engines]
    print_table("Engines", ("engine", "runs here", "why not"), engines)
    print(f"Cache: {here.cache}  ({here.cache_bytes / 1e6:.1f} MB)")
    if here.problems:
        typer.echo(f"error: {'; '.join(here.problems)}", err=True)
        print(f"All at their known-good versions: {_install_all(here.scope)}")
    else:
        exactly = " at its known-good version" if here.scope is Scope.EXPORT else ""
        print(f"Everything for {here.scope.value} is here{exactly}.")


def _install_all(scope: Scope) -> str:
    extra = "export" if scope is Scope.EXPORT else "litert"
    constraints = resources.files("phoneward").joinpath("constraints.txt")
    return f"pip install -c '{constraints}' 'phoneward[{extra}]'"

"""Phoneward on a board: which installation there will do, or a new one in a folder of its own."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from phoneward import __version__
from phoneward.errors import PlaceError, WrongArchitecture
from phoneward.profiles.measure.board.wheel import pack
from phoneward.runtime.engines import ENGINES, format_of
from phoneward.spec import Spec

if TYPE_CHECKING:
    from phoneward.profiles.measure import Setup
    from phoneward.profiles.measure.board.link import Ended, Link

_OLDEST = (3, 10)
# by itself it would look for the files of whoever asks
_PROBE = """
import json, os, sys
sys.path[:] = [p for p in sys.path if p not in ("", os.getcwd())]
from phoneward import __version__
import phoneward.profiles.measure.board.worker
from phoneward.runtime.engines import ENGINES, why_not
lacks = {name: why_not(name) for name in ENGINES}
print("installed " + json.dumps({"version": __version__, "lacks": lacks}))
"""


class Installed(Spec):
    """A Phoneward there: its version, and of each engine why it cannot run, or None."""

    version: str
    lacks: dict[str, str | None]

    def able(self, engines: Collection[str]) -> set[str]:
        """Those of the engines that can run."""
        return {name for name in engines if self.lacks.get(name, "unknown") is None}


def ready_python(
    link: Link, setup: Setup, engines: Sequence[str], progress: Callable[[str], None]
) -> tuple[str, set[str]]:
    """Return an interpreter there that has this Phoneward, and which of the engines it has.

    `engines` are those that could run the artifacts, the preferred one first. What is installed
    there is taken if it is of this version and has one of them.

    Raises:
        PlaceError: there is none, and none could or may be made.
        WrongArchitecture: the interpreter there is of 32 bits.
    """
    _check_python(link)
    found = _probe(link, setup.python)
    if found and found.version == __version__ and found.able(engines):
        return setup.python, found.able(engines)
    if not setup.bootstrap:
        raise PlaceError(str(link.address), _what_lacks(setup.python, found, engines))
    python = _environment(link, setup, _extras(engines), progress)
    found = _probe(link, python)
    if not found or not found.able(engines):
        raise PlaceError(str(link.address), f"{python}: {_what_lacks(python, found, engines)}")
    return python, found.able(engines)


def _check_python(link: Link) -> None:
    where, facts = str(link.address), link.facts
    version = tuple(int(part) for part in facts.python.split(".")[:2])
    if version < _OLDEST:
        raise PlaceError(where, f"{link.python} is Python {facts.python}; 3.10 or newer is needed")
    if facts.bits != 64:
        raise WrongArchitecture(
            where, f"{link.python} is a program of {facts.bits} bits; the engines have 64"
        )


def _probe(link: Link, python: str) -> Installed | None:
    # the shell, because an interpreter that is not there is an answer as well
    ended = link.run(["sh", "-c", 'exec "$0" "$@"', python, "-c", _PROBE])
    for line in ended.said:
        if line.startswith("installed "):
            try:
                return Installed.model_validate(json.loads(line.partition(" ")[2]))
            except (ValueError, ValidationError):
                return None
    return None


def _what_lacks(python: str, found: Installed | None, engines: Sequence[str]) -> str:
    install = f"{python} -m pip install 'phoneward[{','.join(_extras(engines))}]=={__version__}'"
    if found is None:
        return f"Phoneward is not installed there; run there: {install}"
    if found.version != __version__:
        return f"has Phoneward {found.version}, here it is {__version__}; run there: {install}"
    reasons = "; ".join(f"{name}: {found.lacks.get(name, 'unknown')}" for name in engines)
    return f"no engine there can run what is asked for ({reasons}); run there: {install}"


def _extras(engines: Sequence[str]) -> list[str]:
    """What to install: every engine that takes no torch, or the first if all do."""
    light = [name for name in engines if name in ("litert", "onnxruntime")]
    return [ENGINES.entry(name).extra for name in light or engines[:1]]


def _environment(
    link: Link, setup: Setup, extras: Sequence[str], progress: Callable[[str], None]
) -> str:
    """Make a virtual environment in the user's cache there, or find the one made earlier."""
    wheel = pack()
    version = ".".join(link.facts.python.split(".")[:2])
    name = f"{__version__}-{wheel.fingerprint}-{'-'.join(extras)}-py{version}"
    final = f"{link.facts.cache}/environments/{name}"
    if (found := _probe(link, f"{final}/bin/python")) and found.version == __version__:
        return f"{final}/bin/python"
    progress(f"setting up Phoneward in {final}")
    made = f"{final}.{secrets.token_hex(4)}.part"
    link.discard(made)
    python = f"{made}/bin/python"
    _check(link, link.run([setup.python, "-m", "venv", "--system-site-packages", made]), "venv")
    link.put(wheel.name, wheel.content)
    offline = _wheelhouse(link, setup.wheelhouse, progress)
    pip = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *offline]
    own = [*pip, "--no-deps", "--ignore-installed", f"./{wheel.name}"]
    _check(link, link.run(own, says=progress), "pip")
    needed = f"phoneward[{','.join(extras)}]=={__version__}"
    _check(link, link.run([*pip, needed], says=progress), "pip")
    link.rename(made, final)
    return f"{final}/bin/python"


def _wheelhouse(
    link: Link, wheelhouse: Path | None, progress: Callable[[str], None]
) -> tuple[str, ...]:
    if wheelhouse is None:
        return ()
    wheels = sorted(wheelhouse.glob("*.whl"))
    if not wheels:
        raise PlaceError(str(link.address), f"{wheelhouse} has no wheels to install from")
    for wheel in wheels:
        progress(f"sending {wheel.name}")
        link.put(f"wheels/{wheel.name}", wheel)
    return ("--no-index", "--find-links", "wheels")


def _check(link: Link, ended: Ended, what: str) -> None:
    if ended.code == 0:
        return
    where, said = str(link.address), ended.said
    if any("No space left" in line for line in said):
        raise PlaceError(where, f"no space left for an environment in {link.facts.cache}")
    if what == "venv":
        reason = next((line for line in said if "ensurepip" in line or "No module" in line), "")
        raise PlaceError(
            where,
            f"no virtual environment can be made there ({reason or _last(said)}); on Debian: "
            "sudo apt install python3-venv",
        )
    errors = [line for line in said if line.startswith("ERROR")]
    raise PlaceError(
        where,
        f"pip there failed ({_last(errors or said)}); without a network give --wheelhouse FOLDER "
        f"with wheels for {link.facts.machine} and Python {link.facts.python}",
    )


def _last(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def engines_of(formats: Collection[str], asked: str | None) -> list[str]:
    """Engines that read one of these formats on Linux, or the one that is asked for."""
    if asked is not None:
        return [asked]
    # `mil` is for checking, and Core ML for Apple's machines
    usual = (name for name in ENGINES if name not in ("mil", "coreml"))
    return [name for name in usual if format_of(name) in formats]

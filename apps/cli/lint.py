"""`phoneward lint`: what keeps Core ML packages off the Neural Engine, told without a Mac."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phoneward.apps.cli.output import JsonFlag, print_json

if TYPE_CHECKING:
    from phoneward.bundle import Artifact, Bundle
    from phoneward.runtime.engines.mil.lints import Lint

EXAMPLE = "Example: phoneward lint lite0"

_FORMAT = "coreml"
_SUFFIX = ".mlpackage"
_MODULES_TOLD = 3


@dataclass(frozen=True)
class Linted:
    """A package, by a name for people, and its warnings."""

    name: str
    path: Path
    lints: tuple[Lint, ...]


def command(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE_OR_PACKAGE", help="A folder that `export` wrote, or an .mlpackage."
        ),
    ],
    json_output: JsonFlag = False,
) -> int:
    """Warn of what leaves the Neural Engine, or is slow on it, in Core ML packages.

    One line a kind of warning, with counts and the PyTorch modules concerned. Where each fact is
    documented or was measured is in the JSON. These are warnings: Core ML decides on the phone.
    Exit code 0: checked, whatever was found. 2: the target is neither a bundle with Core ML
    artifacts nor a sound package.
    """
    from phoneward.bundle import Bundle
    from phoneward.errors import BundleError

    linted: tuple[Linted, ...]
    if target.suffix == _SUFFIX:
        linted = (_lint(target.name, target),)
    else:
        linted = lint_bundle(Bundle.open(target))
        if not linted:
            raise BundleError(f"{target} has no Core ML artifacts to lint")
    if json_output:
        print_json(
            [
                {
                    "package": str(one.path.absolute()),
                    "lints": [lint.model_dump(mode="json") for lint in one.lints],
                }
                for one in linted
            ]
        )
    else:
        _print(linted)
    return 0


def lint_bundle(bundle: Bundle) -> tuple[Linted, ...]:
    """Lint every Core ML artifact of a bundle."""
    return tuple(
        _lint(_name(artifact), bundle.file(artifact))
        for artifact in bundle.manifest.artifacts
        if artifact.format == _FORMAT
    )


def print_counts(bundle: Bundle, *, use_cache: bool) -> None:
    """Print one line a Core ML artifact: how many warnings it has, and how to see them."""
    from phoneward.errors import EngineError

    for artifact in bundle.manifest.artifacts:
        if artifact.format != _FORMAT:
            continue
        name = _name(artifact)
        try:
            count = _remembered(bundle, artifact) if use_cache else _count(bundle, artifact)
        except EngineError as error:  # the bundle is written and proven: it is no failure
            print(f"{name}: not linted: {error}")
            continue
        how = f"; see them: phoneward lint {shlex.quote(str(bundle.path))}" if count else ""
        print(f"{name}: {_warnings(count)} for the Neural Engine{how}")


def _remembered(bundle: Bundle, artifact: Artifact) -> int:
    """Count, or know from the last time: importing coremltools takes seconds."""
    from phoneward.export.cache import Cache, default_root, key_of, versions

    cache = Cache(default_root())
    tools = versions(("coremltools",))
    key = key_of({"kind": "lint", "sha256": artifact.sha256, "tools": tools})
    if (record := cache.take(key, bundle.path)) is not None:
        return int(record["warnings"])
    count = _count(bundle, artifact)
    cache.put(key, bundle.path, (), {"warnings": count})
    return count


def _count(bundle: Bundle, artifact: Artifact) -> int:
    return len(_lint(_name(artifact), bundle.file(artifact)).lints)


def _warnings(count: int) -> str:
    return f"{count or 'no'} warning{'' if count == 1 else 's'}"


def _name(artifact: Artifact) -> str:
    return f"{artifact.stage} {artifact.format}-{artifact.precision}"


def _lint(name: str, path: Path) -> Linted:
    from phoneward.quiet import noise_to
    from phoneward.runtime.engines import ENGINES
    from phoneward.runtime.engines.mil.lints import lint
    from phoneward.runtime.engines.mil.package import open_package

    ENGINES.require(_FORMAT)
    # coremltools tells what it cannot do here when it is imported
    with noise_to(Path(os.devnull)):
        return Linted(name, path, lint(open_package(path)))


def _print(linted: Sequence[Linted]) -> None:
    for one in linted:
        print(f"{one.name}: {_warnings(len(one.lints))}")
        for lint in one.lints:
            where = f"; in {_modules(lint)}" if lint.modules else ""
            print(f"  {lint.code} ({lint.effect}): {lint.message}{where}")


def _modules(lint: Lint) -> str:
    told = [module or "the model itself" for module in lint.modules[:_MODULES_TOLD]]
    rest = len(lint.modules) - len(told)
    return ", ".join(told) + (f" and {rest} more" if rest else "")

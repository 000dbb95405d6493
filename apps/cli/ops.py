"""`phoneward doctor --ops`: which ops a Core ML package uses, and whether they can be run here."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from phoneward.apps.cli.output import print_json, print_table
from phoneward.quiet import noise_to


def show_ops(path: Path, *, json_output: bool) -> int:
    """List the op types of a package with their counts; 1 if one is missing here, else 0.

    Raises:
        MissingExtra: coremltools or torch is not installed.
        EngineError: the file is no sound Core ML package.
    """
    from phoneward.bundle import MANIFEST
    from phoneward.errors import EngineError
    from phoneward.runtime.engines import ENGINES

    if (path / MANIFEST).exists():
        raise EngineError(f"{path} is a bundle: name a package, {path / 'artifacts'}/*.mlpackage")
    ENGINES.require("mil")
    with noise_to(Path(os.devnull)):
        from phoneward.runtime.engines.mil.package import open_package
        from phoneward.runtime.engines.mil.program import unknown_ops

        package = open_package(path)
        counts, missing = package.op_types(), unknown_ops(package)
    if json_output:
        print_json(
            {
                "package": str(path.absolute()),
                "functions": list(package.functions),
                "ops": dict(counts.most_common()),
                "missing": missing,
            }
        )
    else:
        rows = [(n, str(c), "no" if n in missing else "yes") for n, c in counts.most_common()]
        print_table(f"Ops of {path.name}", ("op", "count", "runs with `mil`"), rows)
        if missing:
            typer.echo(f"error: no such op here: {', '.join(missing)}", err=True)
        else:
            print("The engine `mil` has every op of this package.")
    return 1 if missing else 0

"""Options that several verbs have: which artifacts of a bundle to run, and with what."""

from __future__ import annotations

from typing import Annotated

import typer

from phoneward.names import Precision
from phoneward.runtime.engines import ENGINES


def _engines(incomplete: str) -> list[str]:
    return [name for name in ENGINES if name.startswith(incomplete)]


EngineOption = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(ENGINES)}. `mil` runs Core ML packages anywhere, slowly.",
        autocompletion=_engines,
    ),
]
FormatOption = Annotated[
    str | None, typer.Option("--format", help="Use the artifacts of this format.")
]
PrecisionOption = Annotated[Precision | None, typer.Option(help="... and of this precision.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads the engine may use.")]

"""Options that several verbs have, whose choices are a registry's names."""

from __future__ import annotations

from typing import Annotated

import typer

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

"""TOML files on every supported Python."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoneward.errors import InvalidSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def load_toml(source: Path | Traversable) -> dict[str, Any]:
    """Read a TOML file; raises `InvalidSpec` naming the file if it is not TOML in UTF-8."""
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{source.name}: not valid TOML: {error}") from error

"""TOML on every supported Python, with errors that name the file."""

from __future__ import annotations

import sys
from typing import Any

from phoneward.errors import InvalidSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parse_toml(name: str, content: bytes) -> dict[str, Any]:
    """Parse the content of the file `name`; raises `InvalidSpec` if it is not TOML in UTF-8."""
    try:
        return tomllib.loads(content.decode("utf-8"))
    except ValueError as error:  # bad UTF-8, bad TOML, or an integer too long to read
        raise InvalidSpec(f"{name}: not a TOML document: {error}") from error

"""Where Phoneward keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def default_root() -> Path:
    """`$PHONEWARD_CACHE`, else `phoneward` in the user's cache folder."""
    if configured := os.environ.get("PHONEWARD_CACHE"):
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "phoneward"

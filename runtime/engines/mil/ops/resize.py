"""Images at another size: resizing, cropping, sampling."""

from __future__ import annotations

from phoneward.runtime.engines.mil.signature import Table

TABLE = Table()

"""Values in another order: shapes, axes, slices."""

from __future__ import annotations

from phoneward.runtime.engines.mil.signature import Table

TABLE = Table()

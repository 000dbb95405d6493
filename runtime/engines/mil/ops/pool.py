"""Pooling over one, two and three axes."""

from __future__ import annotations

from phoneward.runtime.engines.mil.signature import Table

TABLE = Table()

"""Normalisations."""

from __future__ import annotations

from phoneward.runtime.engines.mil.signature import Table

TABLE = Table()

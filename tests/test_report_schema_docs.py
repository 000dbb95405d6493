"""What docs/ says of a report is what readers check."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from phoneward.profiles.report import schema
from phoneward.profiles.report.json_schema import schema_text

DOCS = Path(__file__).parent.parent / "docs"
TYPES = (
    schema.LatencyReport,
    schema.StageReport,
    schema.Measured,
    schema.Emulated,
    schema.Predicted,
    schema.Machine,
    schema.Memory,
    schema.Window,
)


def test_the_published_schema_is_current() -> None:
    """Write it anew with `phoneward.profiles.report.json_schema.schema_text`."""
    assert (DOCS / "latency_report.schema.json").read_text(encoding="utf-8") == schema_text()


def test_the_published_schema_refuses_unknown_keys_and_negative_times() -> None:
    published = json.loads(schema_text())
    measured = published["$defs"]["Measured"]
    assert measured["additionalProperties"] is False
    assert measured["properties"]["samples_ns"]["items"]["exclusiveMinimum"] == 0
    assert published["additionalProperties"] is False


def test_every_key_is_explained() -> None:
    text = (DOCS / "latency_report.md").read_text(encoding="utf-8")
    kind: type[BaseModel]
    for kind in TYPES:
        missing = [name for name in kind.model_fields if f"`{name}`" not in text]
        assert not missing, f"{kind.__name__}: {missing}"

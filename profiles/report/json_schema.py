"""The schema of a latency report as JSON Schema, for programs that write or read one."""

from __future__ import annotations

import json

from phoneward.profiles.report.schema import LatencyReport


def schema_text() -> str:
    """Return docs/latency_report.schema.json."""
    schema = LatencyReport.model_json_schema()
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

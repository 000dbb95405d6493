"""Reports as one JSON document: each as it was read, and the figures that pages show of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from phoneward.profiles.report.figures import central, others
from phoneward.profiles.report.page.entries import Entry, entries_of
from phoneward.profiles.report.page.pairs import met
from phoneward.profiles.report.schema import LatencyReport


def to_json(reports: Sequence[LatencyReport]) -> str:
    """Return `reports`, and of their stages `figures` and `predictions` next to measurements."""
    entries = entries_of(reports)
    document = {
        "kind": "latency-collection",
        "schema_version": 1,
        "figures": [_figures(entry, reports) for entry in entries],
        "predictions": [
            {
                "predicted": _where(one.predicted, reports),
                "measured": _where(one.measured, reports),
                "ratio": one.ratio,
                "inside": one.inside,
            }
            for one in met(entries)
        ],
        "reports": [json.loads(report.model_dump_json()) for report in reports],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _figures(entry: Entry, reports: Sequence[LatencyReport]) -> dict[str, Any]:
    result = entry.stage.result
    return {
        **_where(entry, reports),
        "provenance": entry.provenance,
        "figures": [
            {"name": one.name, "value": one.value, "unit": one.unit}
            for one in (central(result), *others(result))
        ],
    }


def _where(entry: Entry, reports: Sequence[LatencyReport]) -> dict[str, Any]:
    stage = entry.stage
    index = next(number for number, report in enumerate(reports) if report is entry.report)
    precision = None if stage.precision is None else str(stage.precision)
    names = {"stage": stage.stage, "format": stage.format, "precision": precision}
    return {"report": index, **names, "engine": stage.engine}

"""The page: one file, no network, safe whatever a report's text says."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from phoneward import __version__
from phoneward.errors import MissingExtra
from phoneward.profiles.report.page import formats
from phoneward.profiles.report.page.entries import Entry, bars_of, entries_of, memory_rows, ops_of
from phoneward.profiles.report.page.pairs import Roofline, met, rooflines
from phoneward.profiles.report.schema import LatencyReport

_FILTERS = (
    formats.ms,
    formats.megabytes,
    formats.count,
    formats.classes,
    formats.share,
    formats.worst_error,
    formats.least_snr,
    formats.fallback,
)


def to_html(reports: Sequence[LatencyReport]) -> str:
    """Return the page of one or more reports; the same reports give the same page.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401 - for charts; missing it is told before anything is drawn
        from markupsafe import Markup
    except ImportError as error:
        raise MissingExtra(error.name or "jinja2", "report") from error

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.ChainableUndefined, trim_blocks=True
    )
    environment.filters.update({one.__name__: one for one in _FILTERS})
    script = _file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    trusted = {"css": Markup(_file("page.css")), "script": Markup(script)}
    drawings = {
        name: [(subject, Markup(drawing)) for subject, drawing in drawn]
        for name, drawn in _drawings(entries_of(reports)).items()
    }
    return environment.from_string(_file("page.html.j2")).render(
        **trusted, **drawings, **_content(reports), script_hash=f"sha256-{digest}"
    )


def _file(name: str) -> str:
    return (files("phoneward.profiles.report.page") / name).read_text(encoding="utf-8")


def _content(reports: Sequence[LatencyReport]) -> dict[str, Any]:
    entries = entries_of(reports)
    several = len(reports) > 1
    return {
        "version": __version__,
        "reports": reports,
        "models": list(dict.fromkeys(report.subject.model for report in reports)),
        "provenances": {report.provenance.value for report in reports},
        "warnings": [
            f"{report.machine.name}: {warning}" if several else warning
            for report in reports
            for warning in report.warnings
        ],
        "bars": bars_of(entries),
        "measured": [entry for entry in entries if entry.measured],
        "predicted": [entry for entry in entries if entry.predicted],
        "emulated": [entry for entry in entries if entry.emulated],
        "met": met(entries),
        "memory": memory_rows(entries),
        "ops": [
            (entry, *ops_of(entry)) for entry in entries if entry.measured and entry.measured.ops
        ],
    }


def _drawings(entries: Sequence[Entry]) -> dict[str, list[tuple[Entry | Roofline, str]]]:
    from phoneward.profiles.report.page.charts import distribution, roofline, sustained

    found: dict[str, list[tuple[Entry | Roofline, str]]] = {
        "distributions": [],
        "sustained": [],
        "rooflines": [],
    }
    for entry in entries:
        measured = entry.measured
        if measured is None:
            continue
        # of less there is nothing to see
        if len(measured.samples_ns) > 7:
            title = "Distribution of the durations"
            drawing = distribution(measured.samples_ns, title, f"d{entry.name}")
            found["distributions"].append((entry, drawing))
        if measured.sustained:
            drawing = sustained(measured.sustained, "Sustained run", f"s{entry.name}")
            found["sustained"].append((entry, drawing))
    for one in rooflines(entries):
        bandwidth = None if one.bandwidth is None else float(one.bandwidth.value)
        drawing = roofline(
            [point.intensity for point in one.points],
            [point.rate for point in one.points],
            [point.share for point in one.points],
            bandwidth,
            (one.entry.provenance, f"r{one.entry.name}"),
        )
        found["rooflines"].append((one, drawing))
    return found

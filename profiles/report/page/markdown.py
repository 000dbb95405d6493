"""Reports as Markdown: tables for a commit, an issue or a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from phoneward.profiles.report.page.entries import Entry, entries_of, ops_of
from phoneward.profiles.report.page.formats import (
    count,
    fallback,
    least_snr,
    ms,
    share,
    worst_error,
)
from phoneward.profiles.report.page.pairs import met
from phoneward.profiles.report.schema import LatencyReport

_MOST_OPS = 12
# what Markdown, or the HTML in it, would take for more than text
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&])")
_TIMES = ("p90", "p99", "cold load", "warm load", "first", "peak memory")


def to_markdown(reports: Sequence[LatencyReport]) -> str:
    """Return tables of all figures; text of the reports is escaped."""
    entries = entries_of(reports)
    models = dict.fromkeys(report.subject.model for report in reports)
    parts = [f"# Latency of {', '.join(map(_text, models))}\n", *_warnings(reports)]
    parts += _table(
        "Figures",
        ("stage", "artifact", "engine", "machine", "time", "interval", *_TIMES),
        ("parity", "error / range", "SNR", "fell back", "provenance"),
        [_figures(entry) for entry in entries if entry.emulated is None],
    )
    parts += _table(
        "Instructions",
        ("stage", "artifact", "engine", "core", "instructions", "classes"),
        ("provenance",),
        [_instructions(entry) for entry in entries if entry.emulated is not None],
    )
    parts += _table(
        "Predictions next to measurements",
        ("stage", "predicted", "interval", "predicted on", "measured", "measured on"),
        ("interval holds it",),
        [
            (
                *(one.predicted.stage.stage, one.predicted.headline, one.predicted.interval),
                *(one.predicted.machine.name, one.measured.headline, one.measured.machine.name),
                {None: "not the same device", True: "yes", False: "no"}[one.inside],
            )
            for one in met(entries)
        ],
    )
    for entry in entries:
        parts += _ops(entry)
    for report in reports:
        parts += _machine(report)
    return "\n".join(parts)


def _figures(entry: Entry) -> tuple[str, ...]:
    known, stage = entry.figures, entry.stage
    return (
        *(stage.stage, entry.kind, entry.engine, entry.machine.name),
        *(entry.headline, entry.interval),
        *(known.get(name, "") for name in _TIMES),
        str(stage.parity.status) if stage.parity else "",
        *(worst_error(stage.parity), least_snr(stage.parity), fallback(stage.delegation)),
        entry.provenance,
    )


def _instructions(entry: Entry) -> tuple[str, ...]:
    found = entry.emulated
    if found is None:
        return ()
    classes = ", ".join(f"{name} {count(times)}" for name, times in sorted(found.by_class.items()))
    head = (entry.stage.stage, entry.kind, entry.engine, found.cpu)
    return (*head, count(found.instructions), classes, entry.provenance)


def _ops(entry: Entry) -> list[str]:
    rows, _, _ = ops_of(entry)
    cells = [
        (
            *(row.op.module or "", row.op.name, row.op.kind, row.op.unit or ""),
            *(ms(row.op.median_ns), share(row.share), entry.provenance),
        )
        for row in rows[:_MOST_OPS]
    ]
    title = f"Slowest ops of {entry.stage.stage}, {entry.kind}, {entry.engine}"
    return _table(title, ("module", "op", "kind", "unit", "ms", "share"), ("provenance",), cells)


def _machine(report: LatencyReport) -> list[str]:
    machine = report.machine
    known = {"model": report.subject.model, "place": report.place, "device": machine.device}
    known |= {"system": machine.os, "processor": machine.cpu, **machine.facts, **report.tools}
    rows = [(name, value) for name, value in known.items() if value]
    rows.insert(0, ("created", report.created.isoformat(" ", "seconds")))
    return _table(f"{machine.name} ({report.provenance})", ("what",), ("value",), rows)


def _warnings(reports: Iterable[LatencyReport]) -> list[str]:
    lines = [
        f"- {_text(report.machine.name)}: {_text(warning)}"
        for report in reports
        for warning in report.warnings
    ]
    return ["What may spoil these figures:\n", *lines, ""] if lines else []


def _table(
    title: str, columns: Sequence[str], more: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[str]:
    """Return the lines of a table; columns in which no row has anything are left out."""
    if not rows:
        return []
    names = (*columns, *more)
    kept = [index for index in range(len(names)) if any(row[index] for row in rows)]
    lines = [f"## {_text(title)}", "", _row([names[index] for index in kept])]
    lines.append(_row(["---"] * len(kept)))
    lines += [_row([_text(row[index]) for index in kept]) for row in rows]
    return [*lines, ""]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))

"""Reports on disk: read with every field checked, written whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from phoneward.errors import OutputError, ReportError
from phoneward.profiles.report.schema import LatencyReport

# a thousand times what a report has after minutes of sampling
_MOST_BYTES = 64_000_000
_MOST_TOLD = 160
# they would act on a terminal that prints them
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def read_report(path: Path) -> LatencyReport:
    """Read a report from anywhere.

    Raises:
        ReportError: the file cannot be read, or is not a report; names the file and the key.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ReportError(path, f"is no report: larger than {_MOST_BYTES / 1e6:.0f} MB")
        text = content.decode("utf-8")
    except OSError as error:
        raise ReportError(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ReportError(path, f"is no text: {error.reason} at byte {error.start}") from error
    return parse_report(path, text)


def parse_report(source: Path | str, text: str) -> LatencyReport:
    """Check a report's text; `source` is named in the error. Raises `ReportError`."""
    try:
        report = LatencyReport.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = _printable(".".join(str(part) for part in first["loc"])) or "document"
        hint = ""
        if first["type"] == "extra_forbidden":
            hint = " (times and sizes carry their unit in their name: _ns, _ms, _bytes)"
        raise ReportError(source, f"{where}: {_printable(first['msg'])}{hint}") from error
    for where, value in _strings(report.model_dump(mode="json"), ""):
        if _CONTROL.search(value):
            raise ReportError(source, f"{_printable(where)}: has a control character")
    return report


def _strings(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Yield every text in a document, keys included, and where it stands."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            at = f"{where}.{key}" if where else key
            yield at, key
            yield from _strings(inner, at)
    elif isinstance(value, list) and value and not isinstance(value[0], (int, float)):
        for index, inner in enumerate(value):
            yield from _strings(inner, f"{where}.{index}")


def _printable(text: str) -> str:
    shown = _CONTROL.sub("?", text).encode("utf-8", "replace").decode("utf-8")
    return shown if len(shown) <= _MOST_TOLD else f"{shown[:_MOST_TOLD]}..."


def write_report(report: LatencyReport, path: Path) -> None:
    """Write a report; a file that is there is replaced at the end, in one step.

    Raises:
        OutputError: it cannot be written; nothing new is left behind.
    """
    staged = path.with_name(path.name + ".part")
    try:
        staged.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
        staged.replace(path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error

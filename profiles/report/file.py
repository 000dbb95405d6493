"""Reports on disk: read with every field checked, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from phoneward.errors import OutputError, ReportError
from phoneward.profiles.report.schema import LatencyReport


def read_report(path: Path) -> LatencyReport:
    """Read a report from anywhere.

    Raises:
        ReportError: the file cannot be read, or is not a report; names the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(path, f"cannot be read: {error}") from error
    return parse_report(path, text)


def parse_report(source: Path | str, text: str) -> LatencyReport:
    """Check a report's text; `source` is named in the error. Raises `ReportError`."""
    try:
        return LatencyReport.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        hint = ""
        if first["type"] == "extra_forbidden":
            hint = " (times and sizes carry their unit in their name: _ns, _ms, _bytes)"
        raise ReportError(source, f"{where}: {first['msg']}{hint}") from error


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

"""`phoneward report`: reports as a page for reading, as Markdown or as one JSON document."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phoneward.errors import InvalidSpec, OutputError

if TYPE_CHECKING:
    from phoneward.profiles.report.schema import LatencyReport

EXAMPLE = "Example: phoneward report pi.json predicted.json -o report.html"


class Format(str, Enum):
    """What a report can be written as."""

    HTML = "html"
    MARKDOWN = "md"
    JSON = "json"


def command(
    reports: Annotated[
        list[Path], typer.Argument(help="What `profile` or `predict` wrote.", metavar="REPORT...")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file; standard output without.", metavar="FILE"),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format", help="Otherwise by the suffix of FILE; Markdown on standard output."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
) -> None:
    """Show latency reports together: on one self-contained page, in Markdown or JSON.

    The page needs no network and no other file. Every figure is marked as measured, emulated or
    predicted. HTML needs the extra `report`. Exit code 2: a file is no report, or FILE exists.
    """
    from phoneward.profiles.report.file import read_report

    chosen = form or _by_suffix(output)
    _check(output, reports, force=force)
    text = _writer(chosen)([read_report(path) for path in reports])
    if output is None:
        print(text, end="")
        return
    _write(text, output)
    print(f"Report: {output}")


def _by_suffix(output: Path | None) -> Format:
    if output is None:
        return Format.MARKDOWN
    suffixes = {".html": Format.HTML, ".htm": Format.HTML, ".md": Format.MARKDOWN}
    known = {**suffixes, ".json": Format.JSON}
    if output.suffix.lower() not in known:
        raise InvalidSpec(f"{output}: end it with {', '.join(known)}, or give --format")
    return known[output.suffix.lower()]


def _writer(form: Format) -> Callable[[Sequence[LatencyReport]], str]:
    from phoneward.profiles.report.page.collection import to_json
    from phoneward.profiles.report.page.html import to_html
    from phoneward.profiles.report.page.markdown import to_markdown

    return {Format.HTML: to_html, Format.MARKDOWN: to_markdown, Format.JSON: to_json}[form]


def _check(output: Path | None, reports: Sequence[Path], *, force: bool) -> None:
    if output is None:
        return
    if output.is_dir():
        raise OutputError(f"cannot write {output}: it is a folder")
    if not output.exists():
        return
    if any(path.exists() and path.samefile(output) for path in reports):
        raise OutputError(f"cannot write {output}: it is one of the reports")
    if not force:
        raise OutputError(f"{output} exists; choose another file or give --force to replace it")


def _write(text: str, output: Path) -> None:
    """Write a file beside its place, then rename it there: whole or not at all."""
    staged = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        staged.write_text(text, encoding="utf-8")
        staged.replace(output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        staged.unlink(missing_ok=True)

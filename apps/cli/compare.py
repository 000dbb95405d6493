"""`phoneward compare`: what is faster or slower in one report than in another, if anything."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phoneward.apps.cli.output import JsonFlag, print_json, print_table
from phoneward.errors import InvalidSpec

if TYPE_CHECKING:
    from phoneward.profiles.report.compare import Comparison, Figure, Pair
    from phoneward.profiles.report.schema import StageReport

EXAMPLE = "Example: phoneward compare before.json after.json --fail-on-regression 5%"

_COLUMNS = ("stage", "figure", "before", "after", "ratio", "95 % interval", "verdict")


def command(
    before: Annotated[Path, typer.Argument(help="A report, the older one.", metavar="A.json")],
    after: Annotated[Path, typer.Argument(help="The report to judge.", metavar="B.json")],
    fail_on_regression: Annotated[
        str | None,
        typer.Option(
            help="Exit with 1 if a stage is proven slower by more than this, e.g. 5% or 0.05: the "
            "lower end of the ratio's interval is above 1.05.",
            metavar="SHARE",
        ),
    ] = None,
    json_output: JsonFlag = False,
) -> int:
    """Compare two reports stage by stage, with a bootstrap interval of each ratio of medians.

    Where the interval holds 1 there is no difference that these samples prove. Counts of emulated
    instructions are exact. Measured, emulated and predicted figures are shown side by side, and
    never divided by each other. Exit code 0: compared; 1: a regression is proven, with
    --fail-on-regression; 2: a file is no report, or the two have no stage in common.
    """
    from phoneward.profiles.report.compare import compare, regressions
    from phoneward.profiles.report.file import read_report

    share = None if fail_on_regression is None else parse_share(fail_on_regression)
    comparison = compare(read_report(before), read_report(after))
    if not comparison.pairs:
        raise InvalidSpec(
            f"{before} and {after} have no stage in common (name, format, precision, engine and "
            f"threads): {_titles(comparison.only_before)}; {_titles(comparison.only_after)}"
        )
    failed = () if share is None else regressions(comparison, share)
    if json_output:
        print_json(_as_json(comparison, None if share is None else failed))
    else:
        _print(comparison)
    if share is not None:
        _conclude(comparison, failed, share, quiet=json_output)
    return 1 if failed else 0


def parse_share(text: str) -> float:
    """Read `5%` or `0.05` as 0.05; raises `InvalidSpec` of anything else."""
    number, sign, rest = text.strip().partition("%")
    try:
        share = float(number) / (100 if sign else 1)
    except ValueError:
        share = math.nan
    if rest or not 0 <= share < math.inf:
        raise InvalidSpec(f"--fail-on-regression {text!r} is no share such as 5% or 0.05")
    if share >= 1 and not sign:
        raise InvalidSpec(f"--fail-on-regression {text}: write {text}% or {share / 100:g}")
    return share


def _print(comparison: Comparison) -> None:
    print_table("After over before", _COLUMNS, _rows(comparison.pairs))
    for pair in comparison.pairs:
        if pair.verdict.why:
            print(f"{pair.title}: {pair.verdict.why}")
    for where, stages in (("before", comparison.only_before), ("after", comparison.only_after)):
        if stages:
            print(f"only {where}: {_titles(stages)}")
    for warning in comparison.warnings:
        print(f"warning: {warning}")


def _rows(pairs: tuple[Pair, ...]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for pair in pairs:
        ends = pair.verdict.interval
        interval = "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
        for index, figure in enumerate(pair.figures):
            ratio = pair.verdict.ratio if index == 0 else _plain_ratio(pair, figure)
            rows.append(
                (
                    pair.title if index == 0 else "",
                    figure.name,
                    _with_unit(figure.before, figure.unit, pair.before),
                    _with_unit(figure.after, figure.unit, pair.after),
                    "" if ratio is None else f"{ratio:.3f}",
                    interval if index == 0 else "",
                    pair.verdict.word if index == 0 else "",
                )
            )
    return rows


def _plain_ratio(pair: Pair, figure: Figure) -> float | None:
    if pair.verdict.word == "not comparable" or not figure.before or figure.after is None:
        return None
    return figure.after / figure.before


def _with_unit(value: float | None, unit: str, stage: StageReport) -> str:
    if value is None:
        return ""
    number = f"{value:.4g} {unit}" if unit else f"{value:,.0f}"
    return f"{number} ({stage.result.provenance})"


def _titles(stages: tuple[StageReport, ...]) -> str:
    from phoneward.profiles.report.figures import title_of

    return ", ".join(map(title_of, stages)) or "none"


def _conclude(
    comparison: Comparison, failed: tuple[Pair, ...], share: float, *, quiet: bool
) -> None:
    for pair in failed:
        typer.echo(
            f"error: {pair.title}: slower by more than {share:.3g} of before: at least "
            f"{pair.verdict.proven:.3f} times as much",
            err=True,
        )
    undecided = [pair for pair in comparison.pairs if pair.verdict.proven is None]
    for pair in undecided:
        typer.echo(f"warning: {pair.title} was not gated: {pair.verdict.why}", err=True)
    gated = len(comparison.pairs) - len(undecided)
    if not failed and not quiet:
        print(f"{gated} of {len(comparison.pairs)} gated: no regression above {share:.1%} proven.")


def _as_json(comparison: Comparison, failed: tuple[Pair, ...] | None) -> dict[str, Any]:
    from phoneward.profiles.report.figures import title_of

    return {
        "pairs": [_pair_json(pair) for pair in comparison.pairs],
        "only_before": [title_of(stage) for stage in comparison.only_before],
        "only_after": [title_of(stage) for stage in comparison.only_after],
        "warnings": list(comparison.warnings),
        "regressions": None if failed is None else [pair.title for pair in failed],
    }


def _pair_json(pair: Pair) -> dict[str, Any]:
    stage, verdict = pair.before, pair.verdict
    return {
        "stage": stage.stage,
        "format": stage.format,
        "precision": None if stage.precision is None else str(stage.precision),
        "engine": stage.engine,
        "threads": stage.threads,
        "provenance": [stage.result.provenance, pair.after.result.provenance],
        "verdict": verdict.word,
        "ratio": verdict.ratio,
        "interval": verdict.interval,
        "why": verdict.why,
        "figures": [
            {"name": one.name, "unit": one.unit, "before": one.before, "after": one.after}
            for one in pair.figures
        ],
    }

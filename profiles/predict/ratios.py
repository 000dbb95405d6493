"""Published ratios of one chip to another, as rows of a chip whose own rows are not published here.

A ratio over many graphs tells how quick a chip is, not how quick a graph is on it. It becomes a few
rows: the reference chip's times a factor. Evaluation never sees them, only predictions do.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from math import log

from phoneward.profiles.predict.rows import Row

KIND = "ratio"
_FILE = "ratios.csv"
# one row in so many of the reference's: they say one thing together
_EVERY = 4
# standard deviations between the 5th and the 95th percentile
_WIDTH = 3.29


@dataclass(frozen=True)
class Ratio:
    """What a chip's latency is to another's, with its 5th and 95th percentile over graphs.

    `graphs` says in words how many, or which, it rests on.
    """

    unit: str
    soc: str
    device: str
    reference_soc: str
    lab: str
    ratio: float
    low: float
    high: float
    graphs: str
    source: str


def load_ratios() -> tuple[Ratio, ...]:
    """Read the ratios of `data/ratios.csv`."""
    text = (files("phoneward.profiles.predict") / "data" / _FILE).read_text(encoding="utf-8")
    numbers = ("ratio", "low", "high")
    return tuple(
        Ratio(**{key: float(value) if key in numbers else value for key, value in line.items()})  # type: ignore[arg-type]
        for line in csv.DictReader(text.splitlines())
    )


def derived_rows(rows: Sequence[Row], noise: float) -> tuple[Row, ...]:
    """Return rows of the chips that only a ratio is known of; `noise` is a usual row's variance."""
    found: list[Row] = []
    for ratio in load_ratios():
        alike = [
            row
            for row in rows
            if (row.group.unit, row.group.soc, row.group.lab)
            == (ratio.unit, ratio.reference_soc, ratio.lab)
        ]
        spread = log(ratio.high / ratio.low) / _WIDTH
        found += [
            replace(
                row,
                group=replace(row.group, soc=ratio.soc, device=ratio.device),
                latency_ms=row.latency_ms * ratio.ratio,
                kind=KIND,
                source=(f"ratio to {ratio.reference_soc} ({ratio.graphs})", ratio.source),
                noise=1 + spread**2 / noise,
            )
            for row in alike[::_EVERY]
        ]
    return tuple(found)

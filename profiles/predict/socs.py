"""What is known of chips without measuring them: their year, and what their cores add up to."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import log

from phoneward.profiles.predict.group import Group

_YEAR, _SPEED = 2021.0, 60.0
_LANES = 4  # single-precision numbers in 128 bits


@dataclass(frozen=True)
class Cores:
    """So many equal cores, their clock in GHz, and 128-bit multiply-add units each."""

    count: int
    ghz: float
    pipes: float


@dataclass(frozen=True)
class Soc:
    """A chip; `same_as` names the one that shares its accelerator and its cores, if any does."""

    name: str
    same_as: str
    year: int
    big: Cores
    little: Cores


@cache
def socs() -> dict[str, Soc]:
    """Return the chips of `data/socs.csv` by name."""
    text = (files("phoneward.profiles.predict") / "data" / "socs.csv").read_text(encoding="utf-8")
    return {row["soc"]: _soc(row) for row in csv.DictReader(text.splitlines())}


def soc_name(text: str) -> str:
    """Return the name under which a chip is known, for any of its spellings; else the text."""
    bare = text.split("(")[0].strip()
    found = socs().get(bare)
    return found.same_as or found.name if found else bare


def year_of(group: Group) -> float:
    """Return the chip's year in decades from 2021; 0 for an unknown chip."""
    found = socs().get(group.soc)
    return (found.year - _YEAR) / 10 if found else 0.0


def speed_of(group: Group) -> float:
    """Return the logarithm of a CPU's peak over a usual one; 0 for other units, unknown chips."""
    found = socs().get(group.soc)
    if group.unit != "cpu" or found is None:
        return 0.0
    return log(_peak(found, group.threads) / _SPEED)


def _peak(soc: Soc, threads: str) -> float:
    """Multiply-adds in single precision a nanosecond of the cores that threads run on."""
    words = threads.split()
    wanted = int(words[0].rstrip("t")) if words and words[0].rstrip("t").isdigit() else 1
    clusters = [soc.little] if "little" in words and soc.little.count else [soc.big, soc.little]
    peak = 0.0
    for cores in clusters:
        used = min(wanted, cores.count)
        peak += used * cores.ghz * cores.pipes * _LANES
        wanted -= used
    return peak


def _soc(row: dict[str, str]) -> Soc:
    return Soc(
        row["soc"], row["same_as"], int(row["year"]), _cores(row, "big"), _cores(row, "little")
    )


def _cores(row: dict[str, str], which: str) -> Cores:
    count, ghz, pipes = (row[f"{which}_{name}"] for name in ("cores", "ghz", "pipes"))
    return Cores(int(count), float(ghz), float(pipes))

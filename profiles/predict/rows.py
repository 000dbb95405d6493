"""The published latencies that the model rests on, as they are carried in `data/`."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from phoneward.profiles.predict.covariance import Points
from phoneward.profiles.predict.features import COLUMNS, identity
from phoneward.profiles.predict.group import Group
from phoneward.profiles.predict.socs import soc_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# relative variance of what was read off a plot by eye, fixed beforehand
_NOISE = {"figure": 3.0}
ROWS, MODELS = "rows.csv", "models.csv"


@dataclass(frozen=True)
class Row:
    """One published latency.

    Attributes:
        model: name that its graph can be built under (`timm:NAME@PIXELS`).
        architecture: the family the model belongs to, whatever its size.
        group: where and how it was taken.
        latency_ms: of one inference.
        kind: `log`, `table` or `figure`: how the number was published.
        excluded: why it is no data for the fit; empty if it is.
        source: title and reference.
        noise: relative variance of its noise.
    """

    model: str
    architecture: str
    group: Group
    latency_ms: float
    kind: str
    excluded: str
    source: tuple[str, str]
    noise: float = 1.0


@dataclass(frozen=True, eq=False)
class Observations:
    """Rows of the fit with the features of their models."""

    rows: tuple[Row, ...]
    features: dict[str, Array]

    @cached_property
    def points(self) -> Points:
        """The rows without their latencies."""
        names = sorted({row.model for row in self.rows})
        groups = sorted({row.group for row in self.rows}, key=repr)
        table = np.array([self.features[name] for name in names])
        return Points(
            features=table,
            identities=tuple(identity(row) for row in table),
            groups=tuple(groups),
            model=np.array([names.index(row.model) for row in self.rows]),
            group=np.array([groups.index(row.group) for row in self.rows]),
        )

    @cached_property
    def log_ms(self) -> Array:
        """Logarithm of each latency in milliseconds."""
        return np.log([row.latency_ms for row in self.rows])

    @cached_property
    def noise(self) -> Array:
        """Relative variance of each row's noise."""
        return np.array([row.noise * _NOISE.get(row.kind, 1.0) for row in self.rows])

    def take(self, chosen: Sequence[int]) -> Observations:
        """Return some of the rows."""
        return Observations(tuple(self.rows[index] for index in chosen), self.features)


def load_observations() -> Observations:
    """Read the rows of the fit and the features of their models."""
    rows = tuple(row for row in load_rows() if not row.excluded)
    return Observations(rows, load_features())


def load_rows() -> tuple[Row, ...]:
    """Read all rows that are carried, those left out of the fit included."""
    return tuple(_row(line) for line in csv.DictReader(_text(ROWS).splitlines()))


def load_features() -> dict[str, Array]:
    """Read the features of the rows' models by name."""
    return {
        line["model"]: np.array([float(line[column]) for column in COLUMNS])
        for line in csv.DictReader(_text(MODELS).splitlines())
    }


def digest() -> str:
    """Return the sha256 of the data files, by which parameters name what they were fitted on."""
    return hashlib.sha256((_text(ROWS) + _text(MODELS)).encode()).hexdigest()


def _text(name: str) -> str:
    folder = files("phoneward.profiles.predict") / "data"
    return (folder / name).read_text(encoding="utf-8")


def _row(line: dict[str, str]) -> Row:
    group = Group(
        unit=line["unit"],
        soc=soc_name(line["soc"]),
        device=line["device"],
        runtime=line["runtime"],
        numeric=line["numeric"],
        threads=line["threads"],
        lab=line["lab"],
    )
    return Row(
        model=line["model"],
        architecture=line["architecture"],
        group=group,
        latency_ms=float(line["latency_ms"]),
        kind=line["kind"],
        excluded=line["excluded"],
        source=(line["source_title"], line["source_ref"]),
    )

"""What a fit learned, as the file that is shipped, and the process that it makes of the rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from phoneward.errors import PredictionError
from phoneward.profiles.predict import rows
from phoneward.profiles.predict.covariance import Scale
from phoneward.profiles.predict.features import COLUMNS
from phoneward.profiles.predict.hyper import NOISE
from phoneward.profiles.predict.physics import Physics
from phoneward.profiles.predict.process import Posterior, Prior
from phoneward.profiles.predict.ratios import derived_rows

FILE = "parameters.json"
COMMAND = "python -m phoneward.apps.bench.predict --fit"


@dataclass(frozen=True, eq=False)
class Parameters:
    """A fit.

    Attributes:
        prior: prices and variances.
        widening: by unit, how many times wider than the process says an interval must be to cover
            what it should, for graphs that were measured on something.
        widening_new: the same for graphs that never were.
        digest: of the rows it was fitted on.
    """

    prior: Prior
    widening: Mapping[str, float]
    widening_new: Mapping[str, float]
    digest: str

    def text(self) -> str:
        """Return the file's content."""
        physics, scale = self.prior.physics, self.prior.scale
        document = {
            "made_by": COMMAND,
            "fitted_on_sha256": self.digest,
            "columns": COLUMNS,
            "amounts": _list(physics.amounts),
            "common": _list(physics.common),
            "prices": {name: _list(price) for name, price in sorted(physics.prices.items())},
            "totals_mean": _list(scale.totals_mean),
            "totals_std": _list(scale.totals_std),
            "shares_mean": _list(scale.shares_mean),
            "shares_power": scale.shares_power,
            "offset": self.prior.offset,
            "variances": _rounded(self.prior.variances),
            "widening": _rounded(self.widening),
            "widening_new": _rounded(self.widening_new),
        }
        return json.dumps(document, indent=1) + "\n"


def parse_parameters(text: str) -> Parameters:
    """Read a file's content; raises `PredictionError` if it is not what this code writes."""
    try:
        document: dict[str, Any] = json.loads(text)
        if tuple(document["columns"]) != COLUMNS:
            raise PredictionError(f"{FILE} has other features; make it again with {COMMAND}")
        prices = {name: np.array(price) for name, price in document["prices"].items()}
        physics = Physics(np.array(document["amounts"]), np.array(document["common"]), prices)
        scale = Scale(
            np.array(document["totals_mean"]),
            np.array(document["totals_std"]),
            np.array(document["shares_mean"]),
            document["shares_power"],
        )
        prior = Prior(physics, scale, document["variances"], document["offset"])
        return Parameters(
            prior=prior,
            widening=document["widening"],
            widening_new=document["widening_new"],
            digest=document["fitted_on_sha256"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise PredictionError(f"{FILE} is damaged: {error!r}") from error


@cache
def load_parameters() -> Parameters:
    """Read the shipped fit."""
    path = files("phoneward.profiles.predict") / "data" / FILE
    return parse_parameters(path.read_text(encoding="utf-8"))


@cache
def shipped_rows() -> rows.Observations:
    """Read the rows that predictions are conditioned on, published ratios of chips included."""
    observed = rows.load_observations()
    derived = derived_rows(observed.rows, load_parameters().prior.variances[NOISE])
    return rows.Observations((*observed.rows, *derived), observed.features)


@cache
def shipped_posterior() -> Posterior:
    """Condition the shipped fit on the shipped rows."""
    observed = shipped_rows()
    prior = load_parameters().prior
    return Posterior(prior, observed.points, observed.log_ms, observed.noise)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: _round(value) for name, value in sorted(values.items())}


def _list(values: Any) -> list[float]:
    return [_round(value) for value in values]


def _round(value: float) -> float:
    return float(f"{value:.8g}")

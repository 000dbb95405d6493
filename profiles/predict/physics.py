"""The time of a graph as a sum over its kernels, with prices per kind of unit and arithmetic.

A price is learned as the exponential of a parameter, so it is positive: more work is never
quicker. The prices of a family of units deviate from common ones as far as its rows ask for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.profiles.predict.features import COLUMNS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Indices = NDArray[np.intp]

# fixed beforehand, in natural logarithms: how far prices lie apart, and how far rows may miss
_SPREAD_OF_PRICES = 2.0
_SPREAD_OF_FAMILIES = 0.7
_SPREAD_OF_ROWS = 0.15
_OUTLYING = 0.35
_STEPS = 300


@dataclass(frozen=True, eq=False)
class Physics:
    """Prices of COLUMNS: `prices[family]` for kinds seen in the fit, `common` for others.

    `amounts` are typical amounts of COLUMNS; a price is for one of these, and what it is in
    milliseconds depends on the device.
    """

    amounts: Array
    common: Array
    prices: dict[str, Array]

    def parts(self, features: Array, family: str) -> Array:
        """Return the relative time of each column; (..., COLUMNS), all >= 0."""
        return features / self.amounts * self.prices.get(family, self.common)

    def log_time(self, features: Array, family: str) -> float:
        """Return the logarithm of the relative time of a graph."""
        return float(np.log(self.parts(features, family).sum()))


def fit_physics(
    features: Array, model: Indices, family: Sequence[str], group: Indices, log_ms: Array
) -> Physics:
    """Find the prices that explain rows best, each group having a speed of its own.

    Args:
        features: (models, COLUMNS).
        model: of each row, an index into `features`.
        family: of each row.
        group: of each row, 0, 1, ...
        log_ms: of each row.
    """
    from scipy.optimize import minimize

    names = sorted(set(family))
    which = np.array([names.index(name) for name in family])
    amounts = np.maximum(features.mean(axis=0), 1e-9)
    scaled = (features / amounts)[model]
    columns, families, groups = len(COLUMNS), len(names), int(group.max()) + 1
    centre = -np.log(columns)

    def loss(packed: Array) -> tuple[float, Array]:
        shared = packed[:columns]
        own = packed[columns : columns * (families + 1)].reshape(families, columns)
        speed = packed[columns * (families + 1) :]
        parts = np.exp(shared + own)[which] * scaled
        total = parts.sum(axis=1)
        missed = log_ms - speed[group] - np.log(total)
        root = np.sqrt(1 + (missed / _OUTLYING) ** 2)
        value = _OUTLYING**2 * (root - 1).sum() / _SPREAD_OF_ROWS**2
        value += 0.5 * ((shared - centre) ** 2).sum() / _SPREAD_OF_PRICES**2
        value += 0.5 * (own**2).sum() / _SPREAD_OF_FAMILIES**2
        slope = -missed / root / _SPREAD_OF_ROWS**2
        to_own = np.zeros_like(own)
        np.add.at(to_own, which, slope[:, None] * parts / total[:, None])
        to_shared = to_own.sum(axis=0) + (shared - centre) / _SPREAD_OF_PRICES**2
        to_own += own / _SPREAD_OF_FAMILIES**2
        to_speed = np.bincount(group, slope, minlength=groups)
        return float(value), np.concatenate([to_shared, to_own.ravel(), to_speed])

    start = np.concatenate(
        [np.full(columns, centre), np.zeros(columns * families), _medians(group, groups, log_ms)]
    )
    best: Any = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
    shared = best.x[:columns]
    own = best.x[columns : columns * (families + 1)].reshape(families, columns)
    prices = {name: np.exp(shared + own[index]) for index, name in enumerate(names)}
    return Physics(amounts, np.exp(shared), prices)


def _medians(group: Indices, groups: int, values: Array) -> Array:
    return np.array([np.median(values[group == index]) for index in range(groups)])

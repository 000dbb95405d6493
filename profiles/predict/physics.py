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
from phoneward.profiles.predict.prices import firm_prices, first_prices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Indices = NDArray[np.intp]

# fixed beforehand, in natural logarithms: how far prices lie apart, and how far rows may miss
_SPREAD_OF_PRICES = 1.0
_SPREAD_OF_FAMILIES = 0.5
_SPREAD_OF_MODELS = 0.25
_SPREAD_OF_FIRM = 0.2
_OUTLYING = 0.35
# rows of one model on sister units tell little new about prices: together they weigh as sqrt(n),
# at most as _MOST of them, over two
_MOST = 4
_STEPS = 200


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
    first = np.array([_first(name, amounts) for name in names])
    firm = np.array([firm_prices(name) for name in names])
    weight = _weights(which * len(features) + model)
    scaled = (features / amounts)[model]
    columns, families, groups = len(COLUMNS), len(names), int(group.max()) + 1

    def loss(packed: Array) -> tuple[float, Array]:
        shared = packed[:columns]
        own = packed[columns : columns * (families + 1)].reshape(families, columns)
        speed = packed[columns * (families + 1) :]
        parts = np.exp(first + shared + own)[which] * scaled
        total = parts.sum(axis=1)
        missed = log_ms - speed[group] - np.log(total)
        root = np.sqrt(1 + (missed / _OUTLYING) ** 2)
        value = _OUTLYING**2 * (weight * (root - 1)).sum() / _SPREAD_OF_MODELS**2
        value += 0.5 * (shared**2).sum() / _SPREAD_OF_PRICES**2
        value += 0.5 * (own**2).sum() / _SPREAD_OF_FAMILIES**2
        held = np.where(firm, shared + own, 0.0)
        value += 0.5 * (held**2).sum() / _SPREAD_OF_FIRM**2
        slope = -weight * missed / root / _SPREAD_OF_MODELS**2
        to_own = held / _SPREAD_OF_FIRM**2
        np.add.at(to_own, which, slope[:, None] * parts / total[:, None])
        to_shared = to_own.sum(axis=0) + shared / _SPREAD_OF_PRICES**2
        to_own += own / _SPREAD_OF_FAMILIES**2
        to_speed = np.bincount(group, slope, minlength=groups)
        return float(value), np.concatenate([to_shared, to_own.ravel(), to_speed])

    start = np.concatenate([np.zeros(columns * (families + 1)), _medians(group, groups, log_ms)])
    best: Any = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
    shared = best.x[:columns]
    own = best.x[columns : columns * (families + 1)].reshape(families, columns)
    prices = {name: np.exp(first[i] + shared + own[i]) for i, name in enumerate(names)}
    return Physics(amounts, np.exp(first.mean(axis=0) + shared), prices)


def _first(family: str, amounts: Array) -> Array:
    """Logarithm of the share that each column has of typical amounts, before any row is seen."""
    cost = first_prices(family) * amounts
    share: Array = cost / cost.sum()
    return np.log(share)


def _weights(pair: Indices) -> Array:
    rows = np.bincount(pair)[pair]
    return np.sqrt(np.minimum(rows, _MOST)) / 2 / rows


def _medians(group: Indices, groups: int, values: Array) -> Array:
    return np.array([np.median(values[group == index]) for index in range(groups)])

"""The Gaussian process on residuals: conditioned on rows, asked for others, rows left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phoneward.profiles.predict.covariance import Points, Scale, covariance
from phoneward.profiles.predict.hyper import NOISE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from phoneward.profiles.predict.physics import Physics

    Array = NDArray[np.float64]
    Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Prior:
    """All that was learned but the rows: prices, scale of descriptors, variances."""

    physics: Physics
    scale: Scale
    variances: Mapping[str, float]
    offset: float

    def mean(self, points: Points) -> Array:
        """Return the log latency of rows before any row has been seen."""
        return points.log_physics(self.physics) + self.offset

    def covariance(self, a: Points, b: Points) -> Array:
        """Return how the deviations from that mean go together."""
        return covariance(a, b, self.variances, self.physics, self.scale)

    def noisy(self, points: Points, noise: Array) -> Array:
        """Return the covariance of rows as they are observed."""
        total = self.covariance(points, points)
        total[np.diag_indices(len(points))] += self.variances[NOISE] * noise
        return total

    def precision(self, points: Points, noise: Array) -> Array:
        """Return the inverse of `noisy`."""
        return np.linalg.inv(self.noisy(points, noise)).astype(np.float64)


class Posterior:
    """A prior that has seen rows.

    Args:
        prior: the prior.
        points: the rows, (n,).
        log_ms: their log latencies.
        noise: relative variances of their noise.
    """

    def __init__(self, prior: Prior, points: Points, log_ms: Array, noise: Array) -> None:
        self._prior, self._points = prior, points
        self._precision = prior.precision(points, noise)
        self._weights = self._precision @ (log_ms - prior.mean(points))

    def predict(self, points: Points) -> tuple[Array, Array]:
        """Return mean and covariance of log latencies as one would observe them."""
        cross = self._prior.covariance(points, self._points)
        mean = self._prior.mean(points) + cross @ self._weights
        before = self._prior.noisy(points, np.ones(len(points)))
        return mean, before - cross @ self._precision @ cross.T


def leave_out(inverse: Array, weights: Array, residual: Array, out: Indices) -> tuple[Array, Array]:
    """Predict the rows `out` from all others, without conditioning anew.

    Rasmussen and Williams, Gaussian Processes for Machine Learning, section 5.4.2, for blocks.

    Args:
        inverse: of the covariance of all rows, noise included.
        weights: the inverse times the residuals.
        residual: of all rows.
        out: the rows left out, all at once.

    Returns:
        Mean and variance of the residual of each of them.
    """
    spread = np.linalg.inv(inverse[np.ix_(out, out)])
    return residual[out] - spread @ weights[out], np.diag(spread).copy()

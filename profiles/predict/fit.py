"""Fit everything that predictions rest on, from rows: prices, then variances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phoneward.profiles.predict.covariance import scale_of
from phoneward.profiles.predict.hyper import fit_variances
from phoneward.profiles.predict.physics import fit_physics
from phoneward.profiles.predict.process import Prior

if TYPE_CHECKING:
    from collections.abc import Mapping

    from phoneward.profiles.predict.rows import Observations


def fit_prior(
    observed: Observations, start: Mapping[str, float] | None = None, steps: int = 40
) -> Prior:
    """Learn prices and variances from rows; needs scipy (`phoneward[predict-fit]`).

    Args:
        observed: the rows.
        start: variances to begin with, those of a fit to similar rows.
        steps: of the search for variances at most.
    """
    start_of = prior_with(observed, start or {})
    points, physics, scale = observed.points, start_of.physics, start_of.scale
    residual = observed.log_ms - start_of.mean(points)
    variances = fit_variances(
        points, residual, observed.noise, (physics, scale), dict(start or {}), steps
    )
    return Prior(physics, scale, variances, start_of.offset)


def prior_with(observed: Observations, variances: Mapping[str, float]) -> Prior:
    """Learn prices from rows, and take variances as they are."""
    points = observed.points
    physics = fit_physics(
        points.features, points.model, points.families, points.group, observed.log_ms
    )
    scale = scale_of(points.features, physics)
    residual = observed.log_ms - points.log_physics(physics)
    return Prior(physics, scale, variances, float(np.mean(residual)))

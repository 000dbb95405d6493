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
    points = observed.points
    physics = fit_physics(
        points.features, points.model, points.families, points.group, observed.log_ms
    )
    scale = scale_of(points.features, physics)
    residual = observed.log_ms - points.log_physics(physics)
    offset = float(np.mean(residual))
    variances = fit_variances(
        points, residual - offset, observed.noise, (physics, scale), dict(start or {}), steps
    )
    return Prior(physics, scale, variances, offset)

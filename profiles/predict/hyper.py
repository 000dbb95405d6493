"""The variances of the process, by maximum of the marginal likelihood (with a weak prior)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.profiles.predict.covariance import SHARED, Points, group_kernel, model_kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.profiles.predict.covariance import Scale
    from phoneward.profiles.predict.physics import Physics

    Array = NDArray[np.float64]

NOISE = "noise"
_PRIOR_MEAN, _PRIOR_STD = np.log(0.005), 2.0
_BOUNDS = (-14.0, 3.0)


def fit_variances(
    points: Points,
    residual: Array,
    noise: Array,
    model: tuple[Physics, Scale],
    start: dict[str, float] | None = None,
    steps: int = 40,
) -> dict[str, float]:
    """Return the variance of each component of the covariance, and of the noise.

    Args:
        points: rows.
        residual: log latency of each, less its physics.
        noise: relative variance of each row's noise, 1 for a usual row.
        model: physics and scale of descriptors.
        start: where to begin, the result for similar rows.
        steps: of the optimiser at most.
    """
    from scipy.linalg import cho_solve, cholesky
    from scipy.optimize import minimize

    names, matrices = _components(points, model)
    rows = len(points)

    def loss(logs: Array) -> tuple[float, Array]:
        weights = np.exp(logs)
        total = np.diag(weights[-1] * noise)
        for matrix, weight in zip(matrices, weights, strict=False):
            total += weight * matrix
        factor = cholesky(total, lower=True, check_finite=False)
        inverse = cho_solve((factor, True), np.eye(rows), check_finite=False)
        alpha = inverse @ residual
        value = 0.5 * residual @ alpha + np.log(np.diag(factor)).sum()
        gap = inverse - np.outer(alpha, alpha)
        low = gap.astype(np.float32)
        slopes = [np.vdot(low, matrix) for matrix in matrices] + [(np.diag(gap) * noise).sum()]
        off = (logs - _PRIOR_MEAN) / _PRIOR_STD**2
        value += 0.5 * (off * (logs - _PRIOR_MEAN)).sum()
        return float(value), 0.5 * weights * np.array(slopes) + off

    known = start or {}
    first = np.log([known.get(name, 0.01) for name in (*names, NOISE)])
    best: Any = minimize(
        loss,
        np.clip(first, *_BOUNDS),
        jac=True,
        method="L-BFGS-B",
        bounds=[_BOUNDS] * len(first),
        options={"maxiter": steps},
    )
    return {name: float(np.exp(v)) for name, v in zip((*names, NOISE), best.x, strict=True)}


def _components(
    points: Points, model: tuple[Physics, Scale]
) -> tuple[list[str], list[NDArray[np.float32]]]:
    physics, scale = model
    same = np.eye(len(points.features))
    kernels = model_kernels(points.features, points.features, same, physics, scale)
    names, matrices = [], []
    for kernel, levels in SHARED.items():
        models = kernels[kernel][np.ix_(points.model, points.model)]
        for level in levels:
            groups = group_kernel(kernel, level, points.groups, points.groups)
            names.append(f"{kernel}.{level}")
            matrices.append((models * groups[np.ix_(points.group, points.group)]).astype("f4"))
    return names, matrices

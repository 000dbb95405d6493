"""The prediction of a graph's latency on a device, with its interval and where the time goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from phoneward.errors import PredictionError, TooMuchUnpriced
from phoneward.profiles.predict.basis import basis_of
from phoneward.profiles.predict.cliffs import cliffs, where, with_cliffs
from phoneward.profiles.predict.covariance import Points
from phoneward.profiles.predict.features import (
    COLUMNS,
    graph_features,
    identity,
    kernel_features,
)
from phoneward.profiles.predict.intervals import LEVEL, of_sum
from phoneward.profiles.predict.parameters import (
    load_parameters,
    shipped_posterior,
    shipped_rows,
)
from phoneward.profiles.predict.targets import Target, group_of
from phoneward.profiles.report.schema import Predicted, Share, Unpriced

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.profiles.kernels import StageKernels
    from phoneward.profiles.predict.calibrate import Calibration
    from phoneward.profiles.predict.group import Group
    from phoneward.profiles.predict.physics import Physics

    Array = NDArray[np.float64]

__all__ = ["Target", "predict_stage", "predict_stages"]

LARGEST_UNPRICED = 0.05
"""Share of a graph's ops, and of its traffic as far as it can be told, that may have no price."""
_INFERENCE = COLUMNS.index("inference")


def predict_stage(
    kernels: StageKernels, target: Target, calibration: Calibration | None = None
) -> Predicted:
    """Predict one graph; raises as `predict_stages`."""
    return predict_stages([kernels], target, calibration)


def predict_stages(
    stages: Sequence[StageKernels], target: Target, calibration: Calibration | None = None
) -> Predicted:
    """Predict graphs that run one after another.

    Args:
        stages: their kernels.
        target: where.
        calibration: measurements of the user's own of this device.

    Raises:
        UnknownName: there is no such device.
        TooMuchUnpriced: too many ops are unknown, or nothing is left to price.
        PredictionError: there is no such runtime, unit or precision, or nothing is known of it.
    """
    unpriced = [op for stage in stages for op in _unpriced(stage)]
    groups = shipped_rows().points.groups
    group = calibration.group(target) if calibration else group_of(target, groups)
    if calibration is None and not any(known.unit == group.unit for known in groups):
        raise PredictionError(f"nothing was ever measured on a {group.unit}")
    points = _points(stages, group)
    posterior = calibration.posterior if calibration else shipped_posterior()
    mean, spread = posterior.predict(points)
    parameters = load_parameters()
    known = set(points.identities) <= set(shipped_rows().points.identities)
    widenings = parameters.widening if known else parameters.widening_new
    widening = widenings.get(group.unit, 1.0)
    latency, interval = of_sum(mean, spread, widening)
    breakdown = [
        share
        for stage, log_ms in zip(stages, mean, strict=True)
        for share in _breakdown(stage, group, parameters.prior.physics, float(np.exp(log_ms)))
    ]
    predicted = Predicted(
        latency_ms=latency,
        interval_ms=interval,
        level=LEVEL,
        basis=basis_of(group, target, points.identities, calibration),
        breakdown=tuple(breakdown),
        unpriced=tuple(unpriced),
    )
    asked = str(target.precision) if target.precision else None
    found = cliffs(stages, where(group, target.device, asked))
    return with_cliffs(predicted, found, counted=calibration is None)


def _points(stages: Sequence[StageKernels], group: Group) -> Points:
    features = np.array([graph_features(stage.kernels) for stage in stages])
    return Points(
        features=features,
        identities=tuple(identity(row) for row in features),
        groups=(group,),
        model=np.arange(len(stages)),
        group=np.zeros(len(stages), dtype=np.intp),
    )


def _unpriced(stage: StageKernels) -> list[Unpriced]:
    if not stage.kernels:
        raise TooMuchUnpriced(stage.unknown, f"{stage.stage}: no op has a price")
    count = sum(stage.unknown.values())
    ops = count + sum(len(kernel.ops) for kernel in stage.kernels)
    # an unknown op may move as much as the graph's largest
    traffic = [kernel.reads + kernel.writes for kernel in stage.kernels]
    moved = count * max(traffic) / max(1, sum(traffic) + count * max(traffic))
    share = max(count / ops, moved)
    if share > LARGEST_UNPRICED:
        names = ", ".join(f"{op} x{n}" for op, n in sorted(stage.unknown.items()))
        reason = f"{stage.stage}: up to {share:.0%} of the graph has no price: {names}"
        raise TooMuchUnpriced(stage.unknown, reason)
    why = "no rule makes a kernel of it"
    return [Unpriced(op=op, count=n, reason=why) for op, n in sorted(stage.unknown.items())]


def _breakdown(stage: StageKernels, group: Group, physics: Physics, ms: float) -> list[Share]:
    family = group.family
    parts = [
        float(physics.parts(kernel_features(kernel), family).sum()) for kernel in stage.kernels
    ]
    overhead = np.zeros(len(COLUMNS))
    overhead[_INFERENCE] = 1
    parts.append(float(physics.parts(overhead, family).sum()))
    scale = ms / sum(parts)
    shares = [
        Share(
            name=f"{stage.stage}/{kernel.module or kernel.ops[0]}",
            kind=kernel.kind,
            module=kernel.module,
            latency_ms=part * scale,
        )
        for kernel, part in zip(stage.kernels, parts, strict=False)
    ]
    last = Share(name=f"{stage.stage}/inference", kind="inference", latency_ms=parts[-1] * scale)
    return [*shares, last]

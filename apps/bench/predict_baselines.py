"""What a latency model has to beat: MACs alone, and a non-negative fit of six plain features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from phoneward.apps.bench.predict_protocol import keys_of
from phoneward.profiles.kernels import Kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.apps.bench.predict_protocol import Hidden
    from phoneward.profiles.predict.rows import Observations

    Array = NDArray[np.float64]

PLAIN = ("dense_macs", "depthwise_macs", "linear_macs", "activations", "parameters", "ops")
_CLASSES = {
    "dense_macs": ("conv", "pointwise", "grouped", "transposed"),
    "depthwise_macs": ("depthwise",),
    "linear_macs": ("linear", "matmul", "attention"),
}
_LEAST_ROWS = 3


def plain_features(kernels: Sequence[Kernel]) -> dict[str, float]:
    """Return the amounts of PLAIN in a graph."""
    amounts: dict[str, float] = {
        name: sum(kernel.macs for kernel in kernels if kernel.kind in kinds)
        for name, kinds in _CLASSES.items()
    }
    amounts["activations"] = sum(kernel.writes for kernel in kernels)
    amounts["parameters"] = sum(kernel.params for kernel in kernels)
    amounts["ops"] = sum(len(kernel.ops) for kernel in kernels)
    return amounts


def macs_only(plain: Array, asked: Array, ms: Array) -> float:
    """Predict by the MACs: milliseconds are proportional to them, by the middle ratio."""
    per_mac = ms / plain[:, :3].sum(axis=1)
    return float(np.median(per_mac) * asked[:3].sum())


def six_features(plain: Array, asked: Array, ms: Array) -> float:
    """Predict by a constant and six amounts with prices >= 0 that fit best in proportion."""
    from scipy.optimize import nnls

    amounts = np.c_[np.ones(len(plain)), plain]
    size = amounts.max(axis=0) + 1e-12
    prices, _ = nnls(amounts / size / ms[:, None], np.ones(len(ms)))
    return float(np.r_[1.0, asked] / size @ prices)


BASELINES = {"MACs only": macs_only, "six features": six_features}


def baseline(
    name: str, observed: Observations, plain: Mapping[str, Array], hidden: Hidden
) -> Array:
    """Return log latencies by a baseline, fitted for each row on its group less what is hidden.

    NaN where fewer than three rows are left.
    """
    rows, keys = observed.rows, keys_of(observed)
    table = np.array([plain[row.model] for row in rows])
    ms = np.array([row.latency_ms for row in rows])
    members: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        members.setdefault(row.group, []).append(index)
    found = np.full(len(rows), np.nan)
    for asked, row in enumerate(rows):
        out = hidden(keys, asked)
        rest = [index for index in members[row.group] if not out[index]]
        if len(rest) >= _LEAST_ROWS:
            guess = BASELINES[name](table[rest], table[asked], ms[rest])
            found[asked] = np.log(guess) if guess > 0 else np.nan
    return found

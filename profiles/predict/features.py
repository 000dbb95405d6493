"""What of a kernel explains its time: work, traffic and dispatch, in classes that cost alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.profiles.kernels import Kernel

COLUMNS = (
    "conv",  # multiply-accumulates, by kind of kernel, ...
    "pointwise",
    "depthwise",
    "wide_depthwise",
    "grouped",
    "linear",
    "matmul",
    "heavy_traffic",  # elements read and written, by kind of kernel, ...
    "light_traffic",
    "reducing_traffic",
    "moving_traffic",
    "params",  # elements of weights
    "heavy",  # how many kernels, by kind
    "depthwises",
    "light",
    "moving",
    "inference",  # one an inference
)
COMPUTE = COLUMNS[:7]
TRAFFIC = COLUMNS[7:12]
DISPATCH = COLUMNS[12:16]
_INDEX = {name: index for index, name in enumerate(COLUMNS)}
# vector units and matrix tiles work on whole multiples of channels
_TILE = 16
# from this window on a depthwise convolution is no longer bound by its traffic
_WIDE = 7
_WORK = {
    "conv": "conv",
    "transposed": "conv",
    "pointwise": "pointwise",
    "depthwise": "depthwise",
    "grouped": "grouped",
    "linear": "linear",
    "matmul": "matmul",
    "attention": "matmul",
}
_REDUCING = ("softmax", "norm", "pool", "reduce")
_MOVING = ("move", "gather", "resize")


def kernel_features(kernel: Kernel) -> NDArray[np.float64]:
    """Return the amounts of COLUMNS in one kernel, all of them >= 0."""
    row = np.zeros(len(COLUMNS))
    traffic = kernel.reads + kernel.writes
    if kernel.kind in _WORK:
        column = _WORK[kernel.kind]
        if column == "depthwise" and kernel.window[0] >= _WIDE:
            column = "wide_depthwise"
        row[_INDEX[column]] = kernel.macs * _padding(kernel)
        row[_INDEX["heavy_traffic"]] = traffic
        row[_INDEX["depthwises" if kernel.kind == "depthwise" else "heavy"]] = 1
    elif kernel.kind in _MOVING:
        row[_INDEX["moving_traffic"]] = traffic
        row[_INDEX["moving"]] = 1
    else:
        reducing = kernel.kind in _REDUCING
        row[_INDEX["reducing_traffic" if reducing else "light_traffic"]] = traffic
        row[_INDEX["light"]] = 1
    row[_INDEX["params"]] = kernel.params
    return row


def graph_features(kernels: Sequence[Kernel]) -> NDArray[np.float64]:
    """Return the amounts of COLUMNS in a whole graph."""
    total = np.sum([kernel_features(kernel) for kernel in kernels], axis=0)
    total[_INDEX["inference"]] = 1
    return np.asarray(total, dtype=np.float64)


def identity(features: NDArray[np.float64]) -> str:
    """Name a graph by what it consists of: equal kernels make the same model, whatever its name."""
    rounded = ",".join(f"{value:.6g}" for value in features)
    return hashlib.sha256(rounded.encode()).hexdigest()[:16]


def _padding(kernel: Kernel) -> float:
    """How much more is computed than asked for, because channels come in whole tiles."""
    if kernel.kind not in ("conv", "pointwise", "linear"):
        return 1.0
    axis = -1 if kernel.kind == "linear" else 1
    factor = 1.0
    for shape in (kernel.in_shape, kernel.out_shape):
        channels = shape[axis] if len(shape) > 1 else _TILE
        # a picture's three channels are packed with their window
        if channels > 4:
            factor *= -(-channels // _TILE) * _TILE / channels
    return factor

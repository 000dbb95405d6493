"""What a TFLite CPU pays for a kernel: nanoseconds a unit of work, fitted on block tables.

The costs in `data/block_costs.csv` were fitted by `python -m phoneward.apps.bench.predict_blocks`
on 12,116 blocks of nn-Meter's tables (MIT) for each phone: fp32, one thread.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from phoneward.errors import UnknownName

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.profiles.kernels import Kernel

    Array = NDArray[np.float64]

WORK = (
    "pointwise",  # multiply-accumulates, by kind
    "conv",
    "linear",
    "matmul",
    "depthwise",
    "wide_depthwise",
    "depthwise_traffic",  # elements, by what reads or writes them
    "gemm_reads",
    "softmax",
    "norm",
    "elementwise",
    "hardswish",
    "other_traffic",
    "params",  # elements of weights
    "inference",  # one
)
"""What costs are for; the columns of `block_work`."""
_GEMM = ("pointwise", "conv", "linear")
_WIDE = 5


def block_work(kernels: Sequence[Kernel]) -> Array:
    """Return the amounts of WORK in a block, (len(WORK),), all of them >= 0."""
    amounts = dict.fromkeys(WORK, 0.0)
    for kernel in kernels:
        traffic = kernel.reads + kernel.writes
        if kernel.kind in _GEMM:
            amounts[kernel.kind] += kernel.macs
            amounts["gemm_reads"] += kernel.reads
        elif kernel.kind == "depthwise":
            wide = kernel.window[0] >= _WIDE
            amounts["wide_depthwise" if wide else "depthwise"] += kernel.macs
            amounts["depthwise_traffic"] += traffic
        elif kernel.kind == "matmul":
            amounts["matmul"] += kernel.macs
        elif kernel.kind in ("softmax", "norm", "elementwise"):
            amounts[kernel.kind] += traffic
        else:
            amounts["other_traffic"] += traffic
        if kernel.activation == "hardswish":
            amounts["hardswish"] += kernel.writes
        amounts["params"] += kernel.params
    amounts["inference"] = 1
    return np.array([amounts[name] for name in WORK])


@cache
def block_costs() -> dict[str, Array]:
    """Return the fitted nanoseconds a unit of WORK by phone: `pixel-1`, `pixel-4`, ..."""
    text = (files("phoneward.profiles.predict") / "data" / "block_costs.csv").read_text("utf-8")
    return {
        row["device"]: np.array([float(row[name]) for name in WORK])
        for row in csv.DictReader(text.splitlines())
    }


def block_ms(kernels: Sequence[Kernel], device: str) -> float:
    """Return milliseconds of a block by costs alone, without any table.

    Raises:
        UnknownName: no costs were fitted for this device; the error lists those that have.
    """
    costs = block_costs()
    if device not in costs:
        raise UnknownName("device with block costs", device, sorted(costs))
    return float(block_work(kernels) @ costs[device]) / 1e6

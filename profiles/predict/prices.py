"""What one of each amount costs before any row is seen, counted in multiply-accumulates.

Rows of a few dozen architectures cannot tell all prices apart, and a kind of kernel that only one
of them has would be priced by that one alone. So prices start from what is known of such hardware:
an accelerator computes far quicker than it streams weights and starts kernels, and is made for
weights that stay where they are, not for products of two computed operands; a CPU is more balanced,
a GPU in between. Orders of magnitude, fixed beforehand; the fit corrects them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phoneward.profiles.predict.features import COLUMNS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FIRST = {
    #                  accelerator  CPU   GPU
    "conv": (1, 1, 1),
    "pointwise": (1, 1, 1),
    "depthwise": (15, 3, 3),
    "wide_depthwise": (8, 2, 2),
    "grouped": (2, 1.5, 2),
    "linear": (1, 1.4, 1),
    "matmul": (40, 1, 10),
    "heavy_traffic": (30, 10, 15),
    "light_traffic": (60, 15, 20),
    "reducing_traffic": (60, 15, 20),
    "moving_traffic": (60, 15, 20),
    "params": (300, 10, 20),
    "heavy": (2e7, 2e5, 1e6),
    "depthwises": (2e7, 2e5, 1e6),
    "light": (2e7, 2e5, 1e6),
    "moving": (2e7, 2e5, 1e6),
    "inference": (1e9, 1e6, 1e7),
}
_KINDS = {"npu": 0, "ane": 0, "ane15": 0, "nnapi": 0, "cpu": 1, "gpu": 2}
# what a measurement of its own tells of a kind of unit, so that rows hardly move it: nn-Meter's
# blocks on three CPUs give linear layers 1.35 to 1.4 and products 0.8 to 1.2 times the price of 1x1
# convolutions (block_costs.csv)
_FIRM = {1: ("linear", "matmul")}


def first_prices(family: str) -> NDArray[np.float64]:
    """Return a price for one of each of COLUMNS; of an unknown family that of an accelerator."""
    kind = _KINDS.get(family.split("-")[0], 0)
    return np.array([_FIRST[column][kind] for column in COLUMNS], dtype=np.float64)


def firm_prices(family: str) -> NDArray[np.bool_]:
    """Tell which first prices were measured for this kind of unit."""
    firm = _FIRM.get(_KINDS.get(family.split("-")[0], 0), ())
    return np.array([column in firm for column in COLUMNS])

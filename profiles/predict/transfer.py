"""Carry a table of block latencies from one device to another by a handful of measured blocks.

The logarithm of the ratio of two devices is taken as linear in what a block is: a constant, its
type, the shares of its time by kind of work, and its size. All coefficients have Gaussian priors
around zero, so that few anchors move them as far as they can tell and no further: without an
anchor of its own a type keeps the common ratio. The priors were learned between two other phones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from phoneward.errors import PredictionError
from phoneward.profiles.predict.block_costs import block_costs, block_work
from phoneward.profiles.predict.blocks import block_kernels, block_type
from phoneward.spec import Spec
from phoneward.toml import parse_toml

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_REFERENCE = "pixel-4"


class Priors(Spec):
    """Variances of the coefficients of a log ratio, and of what remains."""

    constant: float = Field(gt=0)
    type: float = Field(gt=0)
    share: float = Field(gt=0)
    size: float = Field(gt=0)
    noise: float = Field(gt=0)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of a table, described.

    Attributes:
        keys: their names.
        groups: columns that describe them, (n, columns) each: `constant`, `type`, `share`, `size`.
    """

    keys: tuple[str, ...]
    groups: dict[str, Array]

    def scaled(self, priors: Priors) -> Array:
        """Return the columns such that all coefficients have a prior variance of one."""
        parts = [columns * getattr(priors, name) ** 0.5 for name, columns in self.groups.items()]
        return np.concatenate(parts, axis=1)


@cache
def shipped_priors() -> Priors:
    """Return the priors learned from Pixel 4 to Pixel 1."""
    file = files("phoneward.profiles.predict") / "data" / "transfer.toml"
    return Priors.model_validate(parse_toml("transfer.toml", file.read_bytes())["priors"])


def describe(keys: Sequence[str], log_ms: Array) -> Blocks:
    """Describe blocks whose logarithm of milliseconds on the first device is known, (n,)."""
    parts = np.array([block_work(block_kernels(key)) for key in keys]) * block_costs()[_REFERENCE]
    shares = parts / parts.sum(axis=1, keepdims=True)
    types = sorted({block_type(key) for key in keys})
    is_of = np.array([[block_type(key) == kind for kind in types] for key in keys], dtype=float)
    spread = float(log_ms.std()) or 1.0
    return Blocks(
        keys=tuple(keys),
        groups={
            "constant": np.ones((len(keys), 1)),
            "type": is_of,
            "share": shares - shares.mean(axis=0),
            "size": ((log_ms - log_ms.mean()) / spread)[:, None],
        },
    )


def choose_anchors(blocks: Blocks, count: int, priors: Priors | None = None) -> list[int]:
    """Choose which blocks to measure on the second device, before anything is measured there.

    Each is the one that most lowers the mean variance of all predictions (A-optimal, greedily).

    Raises:
        PredictionError: `count` is not between 1 and the number of blocks.
    """
    if not 1 <= count <= len(blocks.keys):
        raise PredictionError(f"{count} anchors of {len(blocks.keys)} blocks cannot be chosen")
    priors = priors or shipped_priors()
    columns = blocks.scaled(priors)
    spread = np.eye(columns.shape[1])
    power = columns.T @ columns / len(columns)
    chosen: list[int] = []
    for _ in range(count):
        moved = columns @ spread
        variance = priors.noise + np.einsum("ij,ij->i", moved, columns)
        gain = np.einsum("ij,jk,ik->i", moved, power, moved) / variance
        gain[chosen] = -1
        best = int(np.argmax(gain))
        spread = spread - np.outer(moved[best], moved[best]) / variance[best]
        chosen.append(best)
    return chosen


def carry(
    blocks: Blocks,
    log_ms: Array,
    anchors: Sequence[int],
    measured_ms: Array,
    priors: Priors | None = None,
) -> Array:
    """Return milliseconds of all blocks on the second device, (n,).

    Args:
        blocks: the table's blocks.
        log_ms: logarithm of their milliseconds on the first device.
        anchors: which were measured on the second.
        measured_ms: what these took there, milliseconds, > 0.
        priors: those learned, by default.

    Raises:
        PredictionError: there is no anchor, or a time that is no positive number.
    """
    if len(anchors) == 0 or len(anchors) != len(measured_ms):
        raise PredictionError("a transfer needs one time for each of at least one anchor")
    if not np.all(np.isfinite(measured_ms)) or np.any(measured_ms <= 0):
        raise PredictionError("a measured time must be a positive number")
    priors = priors or shipped_priors()
    columns = blocks.scaled(priors)
    known = columns[list(anchors)]
    ratio = np.log(measured_ms) - log_ms[list(anchors)]
    spread = known @ known.T + priors.noise * np.eye(len(known))
    return np.asarray(np.exp(log_ms + columns @ (known.T @ np.linalg.solve(spread, ratio))))

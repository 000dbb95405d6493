"""How much the residuals of two rows have in common: likeness of models times likeness of groups.

Log latency is the physics plus a Gaussian process. Its covariance is a sum of products of a kernel
over models (their mix of work, their size, being the same graph) and one over groups (same unit,
chip, runtime, arithmetic, laboratory), the coregionalisation of multi-task Gaussian processes.
So a model that is known on any device helps on all, as far as the rows show that it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from phoneward.profiles.predict.features import COLUMNS, COMPUTE, DISPATCH, TRAFFIC, identity
from phoneward.profiles.predict.group import Group
from phoneward.profiles.predict.socs import speed_of, year_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.profiles.predict.physics import Physics

    Array = NDArray[np.float64]
    Indices = NDArray[np.intp]

SHARED: Mapping[str, tuple[str, ...]] = {
    # every model of these groups is quicker or slower
    "constant": ("all", "unit", "soc", "runtime", "numeric", "recipe", "chip", "lab", "group"),
    "year": ("unit",),
    "speed": ("unit",),
    # ... in proportion to its shares of kinds of work
    "shares": ("unit", "soc", "runtime", "numeric", "recipe", "chip", "lab", "group"),
    # ... or to its size
    "totals": ("unit", "soc", "runtime", "numeric", "recipe", "chip", "lab", "group"),
    # models like it as well
    "far": ("all", "unit", "runtime", "recipe"),
    "near": ("all", "unit", "numeric", "runtime", "recipe", "group"),
    # this very graph
    "same": ("all", "unit", "soc", "numeric", "runtime", "recipe", "chip"),
}
"""Kernels over models, each with the levels at which groups share its effect."""
COMPONENTS = tuple(f"{kernel}.{level}" for kernel, levels in SHARED.items() for level in levels)
# effects in proportion to what is known of a group
_PROPORTIONAL = {"year": year_of, "speed": speed_of}
_NEAR, _FAR = 1.0, 3.0
_WEIGHT_OF_TOTALS, _WEIGHT_OF_SHARES = 0.5, 3.0


@dataclass(frozen=True, eq=False)
class Scale:
    """What centres and scales descriptors, so that they mean the same in fit and prediction."""

    totals_mean: Array
    totals_std: Array
    shares_mean: Array
    shares_power: float


@dataclass(frozen=True, eq=False)
class Points:
    """Rows without their latencies: distinct models and groups, and which each row has.

    `features` is (models, COLUMNS), `identities` names the graphs.
    """

    features: Array
    identities: tuple[str, ...]
    groups: tuple[Group, ...]
    model: Indices
    group: Indices

    def __len__(self) -> int:
        return len(self.model)

    @cached_property
    def families(self) -> list[str]:
        """The family of each row."""
        return [self.groups[index].family for index in self.group]

    def log_physics(self, physics: Physics) -> Array:
        """Return the logarithm of each row's relative time."""
        return np.array(
            [
                physics.log_time(self.features[model], family)
                for model, family in zip(self.model, self.families, strict=True)
            ]
        )

    def extended(self, features: Array, groups: Sequence[Group]) -> Points:
        """Append rows, each with features and a group of its own."""
        models, known = len(self.features), len(self.groups)
        return Points(
            features=np.concatenate([self.features, features]),
            identities=(*self.identities, *(identity(row) for row in features)),
            groups=(*self.groups, *groups),
            model=np.concatenate([self.model, models + np.arange(len(features))]),
            group=np.concatenate([self.group, known + np.arange(len(groups))]),
        )

    def take(self, rows: Indices) -> Points:
        """Return some of the rows."""
        return Points(
            self.features, self.identities, self.groups, self.model[rows], self.group[rows]
        )


def scale_of(features: Array, physics: Physics) -> Scale:
    """Measure the spread of models' descriptors, (models, COLUMNS)."""
    totals, shares = _totals(features), _shares(features, physics)
    centred = shares - shares.mean(axis=0)
    power = float(np.mean((centred**2).sum(axis=1)))
    return Scale(totals.mean(axis=0), totals.std(axis=0), shares.mean(axis=0), power)


def model_kernels(
    a: Array, b: Array, same: Array, physics: Physics, scale: Scale
) -> dict[str, Array]:
    """Return each kernel of SHARED between models; `same` is 1 where graphs are identical."""
    totals = [(_totals(f) - scale.totals_mean) / scale.totals_std for f in (a, b)]
    shares = [_shares(f, physics) for f in (a, b)]
    centred = [s - scale.shares_mean for s in shares]
    place = [
        np.concatenate([t * _WEIGHT_OF_TOTALS, np.sqrt(s) * _WEIGHT_OF_SHARES], axis=1)
        for t, s in zip(totals, shares, strict=True)
    ]
    apart = ((place[0][:, None] - place[1][None]) ** 2).sum(axis=-1)
    one = np.ones((len(a), len(b)))
    return {
        "constant": one,
        "year": one,
        "speed": one,
        "shares": centred[0] @ centred[1].T / scale.shares_power,
        "totals": totals[0] @ totals[1].T / totals[0].shape[1],
        "far": np.exp(-apart / 2 / _FAR**2),
        "near": np.exp(-apart / 2 / _NEAR**2),
        "same": same,
    }


def group_kernel(kernel: str, level: str, a: Sequence[Group], b: Sequence[Group]) -> Array:
    """Return the likeness of groups at a level: 1 where they share its key, else 0."""
    keys = [[group.key(level) for group in groups] for groups in (a, b)]
    names = {key: index for index, key in enumerate(sorted({*keys[0], *keys[1]}))}
    numbers = [np.array([names[key] for key in side]) for side in keys]
    equal: Array = (numbers[0][:, None] == numbers[1][None]).astype(np.float64)
    if kernel in _PROPORTIONAL:
        amounts = [np.array([_PROPORTIONAL[kernel](group) for group in side]) for side in (a, b)]
        equal *= np.outer(*amounts)
    return equal


def covariance(
    a: Points, b: Points, variances: Mapping[str, float], physics: Physics, scale: Scale
) -> Array:
    """Return the covariance of the residuals of two sets of rows, noise not included."""
    same = np.array([[float(p == q) for q in b.identities] for p in a.identities])
    kernels = model_kernels(a.features, b.features, same, physics, scale)
    total = np.zeros((len(a), len(b)))
    for kernel, levels in SHARED.items():
        shared = np.zeros((len(a.groups), len(b.groups)))
        for level in levels:
            if variance := variances.get(f"{kernel}.{level}", 0.0):
                shared += variance * group_kernel(kernel, level, a.groups, b.groups)
        total += kernels[kernel][np.ix_(a.model, b.model)] * shared[np.ix_(a.group, b.group)]
    return total


def _totals(features: Array) -> Array:
    groups = (COMPUTE, TRAFFIC[:-1], TRAFFIC[-1:], DISPATCH)
    columns = [[COLUMNS.index(name) for name in group] for group in groups]
    amounts: Array = np.stack([features[:, index].sum(axis=1) for index in columns], axis=1)
    return np.log1p(amounts)


def _shares(features: Array, physics: Physics) -> Array:
    parts = features / physics.amounts * physics.common
    return np.asarray(parts / parts.sum(axis=1, keepdims=True), dtype=np.float64)

"""nn-Meter's block tables, and what is fitted on them: that alone is shipped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.errors import PredictionError
from phoneward.profiles.predict.block_costs import WORK, block_work
from phoneward.profiles.predict.blocks import block_kernels, block_type
from phoneward.profiles.predict.transfer import Blocks, Priors, describe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

TABLES = Path(__file__).resolve().parents[3] / "shared" / "reference" / "nnmeter_lut"
"""Where the tables lie beside a checkout, if they do; they are not part of it."""
PHONES = {"pixel-1": "pixel1", "pixel-4": "pixel4", "xiaomi-mi-11": "xiaomi11"}
_SAMPLE, _SEED, _ROUNDS = 900, 0, 200


@dataclass(frozen=True, eq=False)
class Tables:
    """Blocks with their milliseconds on each phone, and the work in them, (n, len(WORK))."""

    keys: tuple[str, ...]
    types: NDArray[np.str_]
    ms: dict[str, Array]
    work: Array

    @cached_property
    def blocks(self) -> Blocks:
        """Their descriptions, which rest on the shipped costs."""
        return describe(self.keys, np.log(self.ms["pixel-4"]))


def load_tables(folder: Path = TABLES) -> Tables:
    """Read the tables; raises `PredictionError` if one is missing or they disagree on blocks."""
    raw = {phone: _read(folder / f"{name}_lut_ln_v3.json") for phone, name in PHONES.items()}
    keys = tuple(raw["pixel-4"])
    if any(set(table) != set(keys) for table in raw.values()):
        raise PredictionError(f"{folder}: the tables have different blocks")
    ms = {phone: np.array([table[key] for key in keys]) for phone, table in raw.items()}
    return Tables(
        keys=keys,
        types=np.array([block_type(key) for key in keys]),
        ms=ms,
        work=np.array([block_work(block_kernels(key)) for key in keys]),
    )


def fit_costs(work: Array, ms: Array) -> Array:
    """Fit nanoseconds a unit of work, none negative, to least squares of the relative error."""
    from scipy.optimize import nnls

    relative = work / (ms[:, None] * 1e6)
    scale = relative.max(axis=0)
    scale[scale == 0] = 1
    costs, _ = nnls(relative / scale, np.ones(len(ms)))
    return np.asarray(costs / scale)


def fit_priors(blocks: Blocks, log_ratio: Array) -> Priors:
    """Learn the variances of a log ratio's coefficients by marginal likelihood of a sample."""
    from scipy.optimize import minimize

    chosen = np.random.default_rng(_SEED).choice(len(log_ratio), _SAMPLE, replace=False)
    seen = log_ratio[chosen]
    powers = {name: columns[chosen] @ columns[chosen].T for name, columns in blocks.groups.items()}
    names = ("type", "share", "size", "noise")

    def loss(logs: Array) -> float:
        found = dict(zip(names, np.exp(logs), strict=True))
        spread = powers["constant"] + found["noise"] * np.eye(len(seen))
        spread = spread + sum(found[name] * powers[name] for name in names[:-1])
        factor = np.linalg.cholesky(spread)
        whitened = np.linalg.solve(factor, seen)
        return float(whitened @ whitened / 2 + np.log(np.diag(factor)).sum())

    start = np.log([0.01, 0.01, 0.001, 0.002])
    best: Any = minimize(loss, start, method="Nelder-Mead", options={"maxiter": _ROUNDS})
    return Priors(constant=1.0, **dict(zip(names, map(float, np.exp(best.x)), strict=True)))


def costs_text(costs: dict[str, Array]) -> str:
    """Write costs as they are shipped, in the order of WORK."""
    rows = [f"{phone},{','.join(f'{cost:.4g}' for cost in row)}" for phone, row in costs.items()]
    return "\n".join([f"device,{','.join(WORK)}", *rows]) + "\n"


def priors_text(priors: Priors) -> str:
    """Write priors as they are shipped."""
    head = (
        "# Variances of the coefficients of a log ratio, learned from Pixel 4 to Pixel 1 on\n"
        "# nn-Meter's block tables (MIT): python -m phoneward.apps.bench.predict_blocks --fit\n"
        "[priors]\n"
    )
    return head + "".join(f"{name} = {value:.4g}\n" for name, value in priors)


def errors(predicted: Array, truth: Array, without: Sequence[int] = ()) -> Array:
    """Return relative errors, anchors left out."""
    return np.delete(np.abs(predicted / truth - 1), list(without))


def _read(path: Path) -> dict[str, float]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PredictionError(f"{path}: no block table: {error}") from error
    return {str(key): float(value) for key, value in table.items()}

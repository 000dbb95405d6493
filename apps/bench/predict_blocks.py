"""`python -m phoneward.apps.bench.predict_blocks`: block tables, by costs and carried over."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phoneward.apps.bench.block_page import BlockResults, CostRow, TransferRow, render
from phoneward.apps.bench.block_tables import (
    PHONES,
    TABLES,
    Tables,
    costs_text,
    errors,
    fit_costs,
    fit_priors,
    load_tables,
    priors_text,
)
from phoneward.apps.bench.machine import quoted_command
from phoneward.apps.bench.options import errors_end, write_page
from phoneward.profiles.predict.block_costs import WORK, block_costs
from phoneward.profiles.predict.transfer import carry, choose_anchors, shipped_priors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

DATA = Path(__file__).parents[2] / "profiles" / "predict" / "data"
ANCHORS = 10
DRAWS = 200
_FIRST = "pixel-4"


def fit(tables: Tables, folder: Path = DATA) -> None:
    """Fit costs and priors, and write them where they are shipped from."""
    costs = {phone: fit_costs(tables.work, tables.ms[phone]) for phone in PHONES}
    (folder / "block_costs.csv").write_text(costs_text(costs), encoding="utf-8")
    block_costs.cache_clear()
    ratio = np.log(tables.ms["pixel-1"] / tables.ms[_FIRST])
    # asked for only now, since descriptions rest on the costs
    priors = fit_priors(tables.blocks, ratio)
    (folder / "transfer.toml").write_text(priors_text(priors), encoding="utf-8")


def cost_rows(tables: Tables) -> list[CostRow]:
    """Return the errors of costs alone: fitted on all blocks, and fitted on a tenth of them."""
    tenth = np.random.default_rng(0).permutation(len(tables.keys)) % 10 == 0
    rows = []
    for phone in PHONES:
        truth = tables.ms[phone]
        shipped = errors(tables.work @ block_costs()[phone] / 1e6, truth)
        few = fit_costs(tables.work[tenth], truth[tenth])
        unseen = errors(tables.work[~tenth] @ few / 1e6, truth[~tenth])
        by_type = {t: float(shipped[tables.types == t].mean()) for t in dict.fromkeys(tables.types)}
        rows.append(
            CostRow(
                phone=phone,
                mean=float(shipped.mean()),
                median=float(np.median(shipped)),
                unseen=float(unseen.mean()),
                by_type=by_type,
            )
        )
    return rows


def transfer_row(tables: Tables, second: str, count: int = ANCHORS) -> TransferRow:
    """Return errors over all blocks but the anchors, of Pixel 4's table carried to a phone."""
    truth, first = tables.ms[second], tables.ms[_FIRST]
    rule = choose_anchors(tables.blocks, count)
    bare = np.log(tables.work @ block_costs()[_FIRST] / 1e6)
    return TransferRow(
        second=second,
        anchors=tuple(tables.keys[index] for index in rule),
        rule=_error(tables, np.log(first), rule, truth),
        scalar=_scalar(first, rule, truth),
        without_table=_error(tables, bare, rule, truth),
        draws=DRAWS,
        random=tuple(
            _error(tables, np.log(first), _draw(tables, seed, count), truth)
            for seed in range(DRAWS)
        ),
    )


def _error(tables: Tables, log_ms: Array, anchors: Sequence[int], truth: Array) -> float:
    carried = carry(tables.blocks, log_ms, anchors, truth[list(anchors)])
    return float(errors(carried, truth, anchors).mean())


def _scalar(first: Array, anchors: Sequence[int], truth: Array) -> float:
    chosen = list(anchors)
    factor = np.exp(np.mean(np.log(truth[chosen] / first[chosen])))
    return float(errors(first * factor, truth, anchors).mean())


def _draw(tables: Tables, seed: int, count: int) -> list[int]:
    drawn = np.random.default_rng(seed).choice(len(tables.keys), count, replace=False)
    return [int(index) for index in drawn]


@errors_end
def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--tables", type=Path, default=TABLES, help="folder of nn-Meter's *_lut_ln_v3.json")
    add("--fit", action="store_true", help="fit, and rewrite the shipped costs and priors as well")
    add("-o", "--output", type=Path, default=Path("docs/benchmarks/blocks.md"))
    options = parser.parse_args(arguments)
    tables = load_tables(options.tables)
    if options.fit:
        fit(tables)
        shipped_priors.cache_clear()
    results = BlockResults(
        command=quoted_command("phoneward.apps.bench.predict_blocks", arguments),
        blocks=len(tables.keys),
        units=WORK,
        costs={phone: tuple(map(float, row)) for phone, row in block_costs().items()},
        by_costs=tuple(cost_rows(tables)),
        carried=tuple(transfer_row(tables, phone) for phone in ("xiaomi-mi-11", "pixel-1")),
    )
    write_page(options.output, render(results), results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

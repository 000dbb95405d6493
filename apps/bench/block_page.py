"""The accuracy of block latencies as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from phoneward.spec import Spec

_INTRODUCTION = """\
# Block latencies on phone CPUs

nn-Meter's block tables (Microsoft, MIT, branch dev/hybrid-transformer @9c31e190) hold {blocks:,} \
blocks of hybrid vision transformers on each of three phones: fp32, TFLite, one thread on the CPU. \
They are measurements of others and not part of Phoneward; what is shipped was derived from them. \
All times below that are no table entry are predicted.

Made by `{command}`.

## By costs alone

A block's time is the sum over its fused kernels of work times a cost, no table involved. The \
first columns are of costs fitted on all blocks of that phone, the column **unseen** of costs \
fitted on a tenth of them and asked for the other nine tenths.

"""
_COSTS = """\

The costs, in nanoseconds a unit: multiply-accumulates of the first six, elements of all others \
but the last. Linear layers cost more a multiply-accumulate than 1x1 convolutions; depthwise \
convolutions are paid by traffic, and softmax and layer norm dearly so; weights matter where there \
are few tokens; a kernel's dispatch costs nothing that these tables could show.

"""
_CARRIED = """\

## Carried from Pixel 4 to another phone by {count} anchors

The table of the Pixel 4, and {count} blocks measured on the second phone. The log ratio is linear \
in a block's type, its kinds of work and its size, with shrinkage; which blocks are the anchors is \
chosen beforehand, greedily, so that the mean variance over all blocks is least. Errors are means \
over all other blocks. **One factor** scales the table by the anchors' mean ratio; **without \
table** starts from Pixel 4's costs instead of its table. The variances of the shrinkage were \
learned from Pixel 4 to Pixel 1, so that the second row is no test of them; nothing was learned \
from the Xiaomi Mi 11's blocks for the first.

"""


class CostRow(Spec):
    """Relative errors of costs on one phone; `unseen` of costs fitted on a tenth of the blocks."""

    phone: str
    mean: float
    median: float
    unseen: float
    by_type: dict[str, float]


class TransferRow(Spec):
    """Mean relative errors over all blocks but the anchors; `random` has one of each draw."""

    second: str
    anchors: tuple[str, ...]
    rule: float
    scalar: float
    without_table: float
    draws: int
    random: tuple[float, ...]


class BlockResults(Spec):
    """Everything on the page."""

    command: str
    blocks: int
    units: tuple[str, ...]
    costs: dict[str, tuple[float, ...]]
    by_costs: tuple[CostRow, ...]
    carried: tuple[TransferRow, ...]


def render(results: BlockResults) -> str:
    """Return the page as Markdown."""
    return "".join(_page(results))


def _page(results: BlockResults) -> Iterator[str]:
    yield _INTRODUCTION.format(blocks=results.blocks, command=results.command)
    types = tuple(results.by_costs[0].by_type)
    yield from _table(
        ("Phone", "mean", "median", "unseen", *types),
        [
            (row.phone, *map(_percent, (row.mean, row.median, row.unseen, *row.by_type.values())))
            for row in results.by_costs
        ],
    )
    yield _COSTS
    phones = tuple(results.costs)
    rows = [
        (unit, *(f"{results.costs[phone][index]:.3g}" for phone in phones))
        for index, unit in enumerate(results.units)
    ]
    yield from _table(("Unit", *phones), rows)
    yield _CARRIED.format(count=len(results.carried[0].anchors))
    heads = ("To", "anchors by rule", "anchors at random: mean", "worst tenth from")
    yield from _table(
        (*heads, "one factor, same anchors", "without table"), list(map(_carried, results.carried))
    )
    anchors = ", ".join(f"`{key}`" for key in results.carried[0].anchors)
    yield f"\nThe anchors: {anchors}. At random: {results.carried[0].draws} draws.\n"


def _carried(row: TransferRow) -> tuple[str, ...]:
    tail = float(np.quantile(row.random, 0.9))
    values = (row.rule, float(np.mean(row.random)), tail, row.scalar, row.without_table)
    return (row.second, *map(_percent, values))


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    for cells in (heads, tuple("---" for _ in heads), *rows):
        yield f"| {' | '.join(cells)} |\n"


def _percent(value: float) -> str:
    return f"{value:.1%}"

"""The accuracy of the latency model as a Markdown page."""

from __future__ import annotations

from collections.abc import Sequence

from phoneward.apps.bench.predict_records import Accuracy, Compared, PredictResults

_INTRODUCTION = """\
# Predicted latency against published latency

Every published latency whose model timm or torchvision can build, at the stated size, is \
predicted by a fit that has not seen it: {rows} rows, {models} models. Nothing here was measured \
by Phoneward: the latencies are other people's, with their sources, in \
`profiles/predict/data/rows.csv`; the predictions are computed. How the model works is in \
[predict.md](../predict.md).

Made by `{command}`; data sha256 `{digest}`.

What is hidden when a row is predicted:

- **known elsewhere**: the model on that device, runtime and precision (with that laboratory). \
Other devices, runtimes or precisions may have measured the same graph, as with a public model.
- **left out everywhere**: the model on every device, and in the row's own group every size of its \
architecture. A model of one's own is like that.
- **architecture left out everywhere**: every size of the architecture on every device.

In all three, prices come from a fit without any row of the model's architecture, variances from \
one without the rows of its fold (four folds of architectures; the search for variances begins at \
the shipped ones and takes 15 steps), and the widening of intervals from other architectures' \
errors. The structure of the model, its features and the constants in the code were chosen while \
looking at such tables as a whole. The baselines are fitted for each row on its group, less the \
same hidden rows; they are judged on the rows for which three are left.

The targets, for phone CPUs and Neural Engines pooled: 75 % within 20 %, rank correlation 0.92, \
and a 90 % interval that covers 85 to 95 %.
"""
_HEAD = ("n", "median error", "within 10 %", "within 20 %", "rank", "coverage")


def render(results: PredictResults) -> str:
    """Write the whole page."""
    return "\n".join(
        [
            _INTRODUCTION.format(
                rows=results.rows,
                models=results.models,
                command=results.command,
                digest=results.digest[:16],
            ),
            "## Pooled\n\n" + _pooled(results),
            *_by_group(results),
            "## A device that nobody measured\n\n" + _transfer(results),
            "## Rows that are no data\n\n" + _excluded(results),
            "## The largest misses, models known elsewhere\n\n" + _misses(results),
        ]
    )


def _pooled(results: PredictResults) -> str:
    rows = [
        (pool, protocol, *_cells(compared.model), *_baselines(compared))
        for pool, protocols in results.pooled.items()
        for protocol, compared in protocols.items()
    ]
    head = ("rows of", "hidden", *_HEAD, *_baseline_heads(results))
    return _table(head, rows)


def _by_group(results: PredictResults) -> list[str]:
    parts = []
    for protocol in next(iter(results.pooled.values())):
        rows = [
            (
                group.device,
                f"{group.runtime} {group.unit}",
                group.precision,
                group.lab,
                *_cells(group.protocols[protocol].model),
                *_baselines(group.protocols[protocol]),
            )
            for group in results.groups
        ]
        head = ("device", "runtime", "precision", "lab", *_HEAD, *_baseline_heads(results))
        parts.append(f"## By device, runtime and precision: {protocol}\n\n" + _table(head, rows))
    return parts


def _transfer(results: PredictResults) -> str:
    text = """\
Every chip's unit with 13 rows or more is left out, those of other devices with that chip as well; \
prices and variances come from fits without it (four folds of chips). Then none, five or ten of \
its rows, drawn at random ten times, calibrate it, and the rest is predicted. These intervals are \
the process' own, not widened.
"""
    pooled = [(name, *_cells(value)) for name, value in results.transfer_pooled.items()]
    single = [(t.device, t.unit, str(t.anchors), *_cells(t.accuracy)) for t in results.transfer]
    return "\n".join(
        [
            text,
            _table(("unit", *_HEAD), pooled),
            _table(("chip", "unit", "anchors", *_HEAD), single),
        ]
    )


def _excluded(results: PredictResults) -> str:
    return _table(("why", "rows"), [(e.reason, str(e.rows)) for e in results.excluded])


def _misses(results: PredictResults) -> str:
    rows = [
        (f"`{m.model}`", m.where, f"{m.published_ms:g}", f"{m.predicted_ms:g}")
        for m in results.misses
    ]
    return _table(("model", "where", "published ms", "predicted ms"), rows)


def _cells(accuracy: Accuracy) -> tuple[str, ...]:
    return (
        str(accuracy.rows),
        _percent(accuracy.median_error),
        _percent(accuracy.within_10),
        _percent(accuracy.within_20),
        "" if accuracy.rank is None else f"{accuracy.rank:.2f}",
        "" if accuracy.coverage is None else _percent(accuracy.coverage),
    )


def _baseline_heads(results: PredictResults) -> list[str]:
    first = next(iter(next(iter(results.pooled.values())).values()))
    return [f"{name}: within 20 %, rank" for name in first.baselines]


def _baselines(compared: Compared) -> list[str]:
    return [
        "too few rows" if found is None else f"{_percent(found.within_20)}, {_rank(found)}"
        for found in compared.baselines.values()
    ]


def _rank(accuracy: Accuracy) -> str:
    return "-" if accuracy.rank is None else f"{accuracy.rank:.2f}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

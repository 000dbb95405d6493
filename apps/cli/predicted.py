"""A prediction for people: a line, where the time goes, what it leaves out, what may spoil it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from phoneward.apps.cli.output import print_table

if TYPE_CHECKING:
    from phoneward.profiles.predict.group import Group
    from phoneward.profiles.report.schema import Predicted, Share

_TOP = 8
# what an inference costs before its first kernel
_START = "inference"


def print_prediction(model: str, device: str, group: Group, predicted: Predicted) -> None:
    """Print a prediction."""
    low, high = predicted.interval_ms
    unit = f"{group.unit} {group.threads}".strip()
    arithmetic = "float" if group.numeric == "fp" else group.numeric
    print(
        f"{model} on {device}: {_ms(predicted.latency_ms)} ms, {predicted.level:.0%} interval "
        f"{_ms(low)} to {_ms(high)} ms, predicted ({group.runtime} on {unit}, {arithmetic})"
    )
    print(f"Rests on: {predicted.basis}.")
    total = sum(share.latency_ms for share in predicted.breakdown)
    kinds: dict[tuple[str, str], list[Share]] = defaultdict(list)
    for share in predicted.breakdown:
        kinds[_stage(share), share.kind].append(share)
    rows = [
        (
            stage,
            kind,
            "" if kind == _START else len(shares),
            *_time(sum(share.latency_ms for share in shares), total),
        )
        for (stage, kind), shares in kinds.items()
    ]
    rows.sort(key=lambda row: -float(row[-1].rstrip("%")))
    columns = ("stage", "kind", "kernels", "ms", "share")
    print_table("Where the time goes (predicted)", columns, rows)
    kernels = [share for share in predicted.breakdown if share.kind != _START]
    largest = sorted(kernels, key=lambda share: -share.latency_ms)[:_TOP]
    print_table(
        f"The {len(largest)} largest of {len(kernels)} kernels (predicted)",
        ("stage", "module", "kind", "ms", "share"),
        [(_stage(s), s.module or "", s.kind, *_time(s.latency_ms, total)) for s in largest],
    )
    for op in predicted.unpriced:
        print(f"not in it: {op.op} x{op.count}: {op.reason}")
    for cliff in predicted.cliffs:
        print(f"cliff: {cliff}")


def _stage(share: Share) -> str:
    return share.name.partition("/")[0]


def _time(latency: float, total: float) -> tuple[str, str]:
    return _ms(latency), f"{latency / total if total else 0:.1%}"


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"

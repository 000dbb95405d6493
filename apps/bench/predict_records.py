"""The figures of the latency model's page, as its JSON holds them."""

from __future__ import annotations

from phoneward.spec import Spec


class Accuracy(Spec):
    """How well some left-out rows were predicted.

    Attributes:
        rows: how many.
        median_error: median of |predicted / published - 1|.
        within_10: share of rows with an error up to 10 %.
        within_20: up to 20 %.
        rank: Spearman's correlation; None for fewer than four rows.
        coverage: share of rows inside their interval; None where there is none.
    """

    rows: int
    median_error: float
    within_10: float
    within_20: float
    rank: float | None
    coverage: float | None


class Compared(Spec):
    """The model and the baselines on the same rows, as far as a baseline has an answer."""

    model: Accuracy
    baselines: dict[str, Accuracy | None]


class GroupResult(Spec):
    """One device, runtime and precision under every protocol."""

    device: str
    runtime: str
    unit: str
    precision: str
    lab: str
    protocols: dict[str, Compared]


class Transfer(Spec):
    """A whole device left out, with some rows of its own given back."""

    device: str
    unit: str
    anchors: int
    accuracy: Accuracy


class Miss(Spec):
    """A row that is far from its prediction."""

    model: str
    where: str
    published_ms: float
    predicted_ms: float


class Excluded(Spec):
    """Why rows are no data, and how many."""

    reason: str
    rows: int


class PredictResults(Spec):
    """The whole benchmark.

    `pooled` is by pool and protocol.
    """

    command: str
    digest: str
    rows: int
    models: int
    pooled: dict[str, dict[str, Compared]]
    groups: tuple[GroupResult, ...]
    transfer: tuple[Transfer, ...]
    transfer_pooled: dict[str, Accuracy]
    excluded: tuple[Excluded, ...]
    misses: tuple[Miss, ...]

"""In words: what pays on this machine, and by how much."""

from __future__ import annotations

from phoneward.apps.bench.cbnet.records import System
from phoneward.apps.bench.cbnet.stats import Table
from phoneward.apps.bench.cbnet.systems import RIVALS

_CLAIM = "the paper claims up to 4.8"


def _test(table: Table, system: System) -> float:
    """Percent of the test set, by the first seed's network on its best engine."""
    return 100 * table.judged(system, table.best_engine(system))[0].accuracy


def verdict(table: Table, data: str) -> str:
    """Say how the published CBNet, the best CBNet found, and the best system found compare."""
    lines = [
        _published(table, data),
        _found(table, data, converting=True),
        _found(table, data, converting=False),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _published(table: Table, data: str) -> str:
    return (
        "The published CBNet against LeNet and BranchyNet on the same engine, one image at a "
        "time: "
        f"{_on_engines(table, table.named(data, 'cbnet'), data, 1)} times as fast; in batches "
        f"{_on_engines(table, table.named(data, 'cbnet'), data, table.results.batch)} ({_CLAIM})."
    )


def _on_engines(table: Table, system: System, data: str, batch: int) -> str:
    rivals = [table.named(data, name) for name in ("lenet", "branchynet")]
    return ", ".join(
        f"{engine} "
        + " and ".join(f"{table.ratio(system, rival, engine, batch):.2f}" for rival in rivals)
        for engine in table.engines
    )


def _found(table: Table, data: str, *, converting: bool) -> str:
    what = "configuration with an autoencoder" if converting else "configuration of all"
    best = table.fastest(data, converting=converting)
    if best is None:
        return (
            f"No {what} is as accurate as LeNet and BranchyNet on held-out images: at equal "
            "accuracy it is not faster here."
        )
    engine = table.best_engine(best)
    rivals = [table.named(data, name) for name in RIVALS]
    against = []
    for rival in rivals:
        own = table.best_engine(rival)
        apart = table.typical_us(rival, own) / table.typical_us(best, engine)
        against.append(
            f"{table.ratio(best, rival, engine):.2f} times as fast as {rival.name} on the same "
            f"engine, {apart:.2f} times against {rival.name}'s best ({own})"
        )
    test = _test(table, best)
    others = ", ".join(f"{rival.name} {_test(table, rival):.2f}" for rival in rivals)
    faster = all(
        table.typical_us(best, engine) < table.typical_us(rival, table.best_engine(rival))
        for rival in rivals
    )
    better = [rival.name for rival in rivals if _test(table, rival) > test]
    short = f" On the test set it is less accurate than {' and '.join(better)}." if better else ""
    head = "The fastest" if faster else "Not faster than both, but the fastest"
    return (
        f"{head} {what} at equal or better accuracy on held-out images: **{best.name}** on "
        f"{engine}, {table.typical_us(best, engine):.1f} us an image, {'; '.join(against)}. "
        f"Test accuracy of the first seed {test:.2f} % ({others}).{short}"
    )

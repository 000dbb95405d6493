"""The page of this benchmark, from its results alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from phoneward.apps.bench.cbnet.records import EnergyRow, Judgement, Results, System
from phoneward.apps.bench.cbnet.run import JUDGE_ENGINE
from phoneward.apps.bench.cbnet.stats import Table
from phoneward.apps.bench.cbnet.systems import RIVALS
from phoneward.apps.bench.cbnet.verdict import verdict
from phoneward.export.train.cbnet.run import NETWORKS
from phoneward.profiles.energy.schema import Energy, PredictedEnergy

# accuracy in percent and exit rate; seconds for 10,000 images on a Raspberry Pi 4 and on a cloud
# machine with two cores: the authors' notebook (max2022/Converting-Autoencoder @a2533784)
_PUBLISHED_ACCURACY = {
    ("mnist", "lenet"): 99.03,
    ("mnist", "branchynet"): 99.12,
    ("mnist", "cbnet_light"): 98.58,
    ("mnist", "cbnet"): 98.61,
    ("kmnist", "lenet"): 91.4,
    ("kmnist", "branchynet"): 92.05,
    ("kmnist", "cbnet_light"): 87.39,
    ("kmnist", "cbnet"): 92.5,
    ("fashion-mnist", "lenet"): 84.9,
    ("fashion-mnist", "branchynet"): 87.8,
    ("fashion-mnist", "cbnet_light"): 87.05,
    ("fashion-mnist", "cbnet"): 89.59,
}
_PUBLISHED_EXIT = {"mnist": 94.88, "fashion-mnist": 76.91, "kmnist": 63.08}
_PUBLISHED_SECONDS = {
    ("mnist", "lenet"): (127.36, 13.22),
    ("mnist", "branchynet"): (23.00, 3.95),
    ("mnist", "cbnet_light"): (20.49, None),
    ("mnist", "cbnet"): (18.77, 2.67),
    ("kmnist", "lenet"): (128.15, 13.5),
    ("kmnist", "branchynet"): (56.83, 9.0),
    ("kmnist", "cbnet_light"): (19.04, None),
    ("kmnist", "cbnet"): (18.97, 2.60),
    ("fashion-mnist", "lenet"): (130.06, 13.35),
    ("fashion-mnist", "branchynet"): (72.48, 7.63),
    ("fashion-mnist", "cbnet_light"): (18.74, None),
    ("fashion-mnist", "cbnet"): (18.95, 2.67),
}
_IMAGES = 10_000


def render(results: Results, pictures: Sequence[str]) -> str:
    """Return the page in Markdown; `pictures` are files beside it."""
    table = Table(results)
    parts = [_head(results)]
    for data in dict.fromkeys(case.system.data for case in results.cases):
        parts += [f"## {data}", verdict(table, data)]
        parts += ["### The published networks", _networks(table, data)]
        parts += ["### What was searched", _search(table, data)]
    if results.failures:
        parts += ["## Left out", _failures(results.failures)]
    parts += ["## Energy", _energy(results)]
    parts += ["## Pictures", _pictures(pictures)]
    return "\n\n".join(parts) + "\n"


def _head(results: Results) -> str:
    others = max((one.times.others or 0.0 for one in results.rounds), default=0.0)
    packages = ", ".join(f"{name} {version}" for name, version in results.machine.versions.items())
    rounds = len({one.round for one in results.rounds})
    seeds = len({record.seed for record in results.trainings})
    tests = _numbers(record.test_images for record in results.trainings)
    held = _numbers(record.held_out_images for record in results.trainings)
    return f"""# CBNet on optimised engines

CBNet (arXiv 2403.07036) converts every image to an easy one of its class by an autoencoder, and \
classifies that with the light network in front of BranchyNet's exit. The published gain was \
measured in Keras and Chainer on a Raspberry Pi 4; here the same networks, trained anew, are \
exported and run by three engines.

Accuracies of the published networks are those of the whole test set ({tests} images) over {seeds} \
seeds, computed by the exported artifacts on LiteRT. Times are of the first seed's networks, \
{results.threads} thread: {rounds} rounds, in each of which every engine gets one process; in it \
all networks take turns, the other way round in every second of {results.turns} turns, at \
{results.images} test images a turn, the same for all. A time is all that a caller of the runtime \
waits for (layout of the image, graphs, entropy at an exit, in Python), the mean of a turn's \
images, and of all turns the middle one. In batches a turn is one call: images that stay at an \
exit are gathered from all batches. Ratios are formed within turns. Multiply-adds are counted in \
the plain networks.

What is compared at equal accuracy is chosen on training images that are held out from training \
({held} of them): exit entropies on one half, systems on the other, by the artifacts on the engine \
that is fastest for each. Test accuracies are only reported. (Of the training's recipe, images are \
moved or not by what held-out images say: `export/train/cbnet/plan.py`.) BranchyNet appears with \
the published exit entropy, and with the one that held-out images choose.

- Measured on {results.date}: {results.machine.cpu}, {results.machine.cores} cores, \
{results.machine.system}; other processes kept up to {others:.1f} cores busy
- Packages: {packages}
- Command: `{results.command}`"""


def _networks(table: Table, data: str) -> str:
    batch = table.results.batch
    systems = [table.named(data, name) for name in NETWORKS]
    lenet = systems[0]
    accuracy = _table(
        (
            "network",
            "multiply-adds",
            "accuracy % (mean, least to most of the seeds)",
            "published",
            "leave at the exit %",
            "published",
        ),
        (
            (
                system.name,
                _work(system),
                _accuracies(table.judged(system, JUDGE_ENGINE)),
                _figure(_PUBLISHED_ACCURACY.get((data, system.name))),
                _exit_rates(table.judged(system, JUDGE_ENGINE)),
                _figure(_PUBLISHED_EXIT.get(data) if system.name == "branchynet" else None),
            )
            for system in systems
        ),
    )
    times = _table(
        ("network", *_columns(table, batch), "Raspberry Pi 4, published", "cloud, published"),
        (
            (
                system.name,
                *_cells(table, system, lenet, batch),
                *(
                    "" if s is None else f"{1e6 * s / _IMAGES:.0f}"
                    for s in _PUBLISHED_SECONDS.get((data, system.name), (None, None))
                ),
            )
            for system in systems
        ),
    )
    return (
        f"{accuracy}\n\nMicroseconds an image, one at a time and in batches of {batch}; in "
        f"brackets how many times as long LeNet takes there.\n\n{times}"
    )


def _search(table: Table, data: str) -> str:
    batch = table.results.batch
    lenet = table.named(data, "lenet")
    searched = [one for one in table.systems(data) if not one.published and one.name not in RIVALS]
    rows = []
    for system in (*(table.named(data, name) for name in RIVALS), *searched):
        best = table.best_engine(system)
        rows.append(
            (
                system.name,
                _work(system),
                f"{100 * table.held_out(system, best):.2f}",
                _accuracies(table.judged(system, best)[:1]),
                _exit_rates(table.judged(system, best)[:1]),
                *_cells(table, system, lenet, batch),
            )
        )
    columns = ("system", "multiply-adds", "held-out %", "test %", "exit %")
    about = (
        "Networks of the first seed; accuracies on the engine that is fastest for each. `cbnet "
        "A-B` has an autoencoder 784-A-B-784, `light A-B` a light network whose convolutions have "
        "A and B channels and strides instead of pools; `+ light 4-8` stands behind an autoencoder "
        "instead of the published one."
    )
    return f"{about}\n\n{_table((*columns, *_columns(table, batch)), rows)}"


def _columns(table: Table, batch: int) -> list[str]:
    return [f"{engine}, {n}" for engine in table.engines for n in (1, batch)]


def _cells(table: Table, system: System, lenet: System, batch: int) -> list[str]:
    return [
        f"{table.typical_us(system, engine, n):.1f} ({table.ratio(system, lenet, engine, n):.2f})"
        for engine in table.engines
        for n in (1, batch)
    ]


def _failures(failures: Sequence[str]) -> str:
    lines = "\n".join(f"- {failure}" for failure in failures)
    return f"Systems of which an artifact missed the gate, so that none was measured:\n\n{lines}"


def _energy(results: Results) -> str:
    groups: dict[str, list[EnergyRow]] = {}
    for row in results.energies:
        if row.system.published:
            groups.setdefault(_how(row.energy), []).append(row)
    parts = []
    for how, rows in groups.items():
        kind = rows[0].energy.provenance
        body = _table(
            ("data", "system", "engine", f"{kind} mJ an image"),
            (
                (row.system.data, row.system.name, row.engine, f"{1e3 * row.energy.joules:.3f}")
                for row in rows
            ),
        )
        parts.append(f"{how}\n\n{body}")
    counters = "\n".join(
        f"- {name}: {reason or 'used'}" for name, reason in results.counters.items()
    )
    return "\n\n".join(parts) + f"\n\nCounters of real energy on this machine:\n\n{counters}"


def _how(energy: Energy) -> str:
    if isinstance(energy, PredictedEnergy):
        return f"Predicted as the paper does it, power times time: {energy.basis}."
    return f"Measured by {energy.counter} ({energy.domain}), what the idle machine takes included."


def _pictures(names: Iterable[str]) -> str:
    lines = "\n\n".join(f"![Conversions of {name}]({name})" for name in names)
    return (
        "Hard images (those that stay at BranchyNet's exit), and beneath each what the autoencoder "
        "made of it: classified right, classified wrong, and images that were easy until they were "
        f"converted.\n\n{lines}"
    )


def _work(system: System) -> str:
    return " + ".join(f"{count / 1e6:.2f} M" for count in system.multiply_adds)


def _figure(percent: float | None) -> str:
    return "" if percent is None else f"{percent:.2f}"


def _accuracies(judged: Sequence[Judgement]) -> str:
    return _spread([one.accuracy for one in judged])


def _exit_rates(judged: Sequence[Judgement]) -> str:
    return _spread([one.exit_rate for one in judged if one.exit_rate is not None])


def _spread(shares: Sequence[float]) -> str:
    if not shares:
        return ""
    mean = 100 * statistics.mean(shares)
    if len(shares) == 1:
        return f"{mean:.2f}"
    return f"{mean:.2f} ({100 * min(shares):.2f} to {100 * max(shares):.2f})"


def _numbers(found: Iterable[int]) -> str:
    return " or ".join(f"{number:,}" for number in sorted(set(found)))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)

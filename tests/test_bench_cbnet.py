"""The benchmark of CBNet: ratios within turns, choices on held-out images, a page that is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoneward.apps.bench.cbnet.cases import slice_of
from phoneward.apps.bench.cbnet.energy import energy_rows
from phoneward.apps.bench.cbnet.judging import judge
from phoneward.apps.bench.cbnet.page import render
from phoneward.apps.bench.cbnet.records import (
    Accuracy,
    Case,
    CaseTime,
    JudgeJob,
    Judgement,
    Results,
    Round,
    System,
    TimeJob,
    Times,
)
from phoneward.apps.bench.cbnet.stats import Table
from phoneward.apps.bench.cbnet.timing import measure, timed
from phoneward.apps.bench.cbnet.verdict import verdict
from phoneward.apps.bench.machine import this_machine
from phoneward.export.models.cbnet.settings import Settings
from phoneward.export.pipeline import export_bundle
from phoneward.export.request import make_request
from phoneward.export.train.cbnet.record import Exits, Outcome, Record
from phoneward.names import Precision
from phoneward.profiles.energy.schema import PredictedEnergy

ENGINES = ("litert", "onnxruntime")
BATCH = 10
# microseconds an image: of one at a time, of a batch; by engine
TIMES = {
    "lenet": {"litert": (100, 40), "onnxruntime": (80, 50)},
    "branchynet": {"litert": (60, 30), "onnxruntime": (70, 40)},
    "branchynet, exit chosen": {"litert": (55, 30), "onnxruntime": (65, 40)},
    "cbnet_light": {"litert": (20, 10), "onnxruntime": (30, 10)},
    "cbnet": {"litert": (90, 10), "onnxruntime": (200, 20)},
    "cbnet int8": {"litert": (25, 10), "onnxruntime": (100, 20)},
    "exit + hybrid": {"litert": (22, 10), "onnxruntime": (50, 20)},
}
HELD_OUT = {
    "lenet": 0.90,
    "branchynet": 0.91,
    "branchynet, exit chosen": 0.905,
    "cbnet_light": 0.85,
    "cbnet": 0.92,
    "cbnet int8": 0.91,
    "exit + hybrid": 0.93,
}
MODELS = {
    "cbnet int8": "cbnet",
    "exit + hybrid": "exit_hybrid",
    "branchynet, exit chosen": "branchynet",
}


def system(name: str) -> System:
    return System(
        data="fashion-mnist",
        name=name,
        model=MODELS.get(name, name),
        weights=f"{name}.safetensors",
        precision=Precision.INT8 if name.endswith("int8") else Precision.FP32,
        published=name not in MODELS,
        multiply_adds=(200_000, 900_000) if name == "branchynet" else (300_000,),
    )


def results(held_out: dict[str, float] = HELD_OUT, slow: int = 1) -> Results:
    """Two rounds of two turns each; in the second round the machine takes twice as long."""
    systems = [system(name) for name in TIMES]
    cases = [Case(system=s, batch=n, bundle="b", images="i") for s in systems for n in (1, BATCH)]
    rounds = []
    for number in range(2):
        for engine in ENGINES:
            times = []
            for case in cases:
                us = TIMES[case.system.name][engine][case.batch > 1]
                us *= slow if case.system.model == "exit_hybrid" else 1
                ns = 1000 * us * (number + 1)
                times.append(CaseTime(mean_ns=(ns, ns)))
            rounds.append(
                Round(engine=engine, round=number, times=Times(times=tuple(times), others=0.05))
            )
    judged = [
        Accuracy(
            system=s,
            engine=engine,
            seed=seed,
            on=on,
            judgement=Judgement(
                accuracy=(held_out if on == "held out" else HELD_OUT)[s.name] - 0.01 * seed,
                exit_rate=0.7 if s.model in ("branchynet", "exit_hybrid") else None,
            ),
        )
        for s in systems
        for engine in ENGINES
        for seed, on in ((0, "test"), (1, "test"), (0, "held out"))
    ]
    return Results(
        machine=this_machine(),
        date="2026-01-01",
        command="python -m phoneward.apps.bench.cbnet",
        threads=1,
        turns=2,
        images=400,
        batch=BATCH,
        trainings=(record(),),
        cases=tuple(cases),
        rounds=tuple(rounds),
        accuracies=tuple(judged),
        energies=energy_rows(cases, rounds, lambda one: one, 0.5),
        counters={"rapl": "no powercap here", "powermetrics": None},
        failures=("fashion-mnist cbnet 9 int8: onnx converted: relative error 2.0e-01",),
    )


def record() -> Record:
    exits = Exits(
        exit_entropy=0.5,
        exit_rate=0.7,
        accuracy=0.9,
        accuracy_at_exit=0.8,
        accuracy_at_end=0.9,
    )
    return Record(
        data="fashion-mnist",
        seed=0,
        settings=Settings(),
        train_images=10,
        held_out_images=2,
        test_images=5,
        test=Outcome(accuracies={"lenet": 0.9}, branchynet=exits),
        held_out=Outcome(accuracies={"lenet": 0.9}, branchynet=exits),
        hard_per_class={"0": 1},
        hard_rate=0.3,
        targets=(1, 2),
        losses={"lenet": (1.0,)},
        tools={},
        seconds=1.0,
    )


def test_ratios_are_formed_within_turns() -> None:
    table = Table(results())
    cbnet, lenet = system("cbnet"), system("lenet")
    # the median of all turns mixes a fast round with a slow one; no ratio does
    assert table.typical_us(lenet, "litert") == 150
    assert table.ratio(cbnet, lenet, "litert") == pytest.approx(100 / 90)
    assert table.ratio(cbnet, lenet, "litert", BATCH) == 4


def test_the_fastest_is_chosen_among_the_accurate_ones() -> None:
    table = Table(results())
    assert table.best_engine(system("lenet")) == "onnxruntime"
    fastest = table.fastest("fashion-mnist", converting=False)
    assert fastest is not None
    assert fastest.name == "exit + hybrid", "the light network is faster, and not accurate enough"
    converting = table.fastest("fashion-mnist", converting=True)
    assert converting is not None
    assert converting.name == "cbnet int8"


def test_held_out_accuracy_decides_and_not_that_of_the_test() -> None:
    worse = {**HELD_OUT, "cbnet int8": 0.5, "cbnet": 0.5}
    table = Table(results(worse))
    assert table.fastest("fashion-mnist", converting=True) is None
    text = verdict(table, "fashion-mnist")
    assert "No configuration with an autoencoder is as accurate as LeNet and BranchyNet" in text


def test_the_verdict_states_the_measured_ratios() -> None:
    text = verdict(Table(results()), "fashion-mnist")
    assert "litert 1.11 and 0.67, onnxruntime 0.40 and 0.35 times as fast" in text
    assert "in batches litert 4.00 and 3.00, onnxruntime 2.50 and 2.00" in text
    assert (
        "**cbnet int8** on litert, 37.5 us an image, 4.00 times as fast as lenet on the same "
        "engine, 3.20 times against lenet's best (onnxruntime)" in text
    )
    assert "**exit + hybrid**" in text
    assert "Not faster" not in text


def test_a_slow_winner_is_not_called_faster() -> None:
    slow = {**HELD_OUT, "cbnet int8": 0.5}
    text = verdict(Table(results(slow, slow=10)), "fashion-mnist")
    assert "Not faster than both, but the fastest configuration with an autoencoder" in text
    assert "**cbnet**" in text


def test_the_page_has_every_figure_beside_what_was_published() -> None:
    page = render(results(), ["cbnet-fashion-mnist.png"])
    assert "| branchynet | 0.20 M + 0.90 M | 90.50 (90.00 to 91.00) | 87.80 |" in page
    assert "| 70.00 (70.00 to 70.00) | 76.91 |" in page
    assert (
        "| cbnet | 135.0 (1.11) | 15.0 (4.00) | 300.0 (0.40) | 30.0 (2.50) | 1895 | 267 |" in page
    )
    assert "- rapl: no powercap here" in page
    assert "- powermetrics: used" in page
    assert "- fashion-mnist cbnet 9 int8: onnx converted: relative error 2.0e-01" in page
    assert "busy to 50 % (exponent 0.75)" in page
    assert "![Conversions of cbnet-fashion-mnist.png](cbnet-fashion-mnist.png)" in page
    assert "other processes kept up to 0.1 cores busy" in page


def test_predicted_energy_is_power_times_time() -> None:
    rows = {(r.system.name, r.engine): r.energy for r in results().energies}
    assert len(rows) == len(TIMES) * len(ENGINES), "of one image at a time alone"
    energy = rows["lenet", "litert"]
    assert isinstance(energy, PredictedEnergy)
    assert energy.power_watts == pytest.approx((140 * 0.5**0.75 + 40) / 9)
    assert energy.joules == pytest.approx(energy.power_watts * 150e-6)


def test_slices_go_through_all_images_and_start_again() -> None:
    images = np.arange(10)
    assert slice_of(images, 0, 4).tolist() == [0, 1, 2, 3]
    assert slice_of(images, 2, 4).tolist() == [8, 9, 0, 1]


class _Counts:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def answers(self, images: Any) -> None:
        self.sizes.append(len(images))


def test_a_turn_classifies_each_image_once() -> None:
    single, batched = _Counts(), _Counts()
    images = np.zeros((8, 28, 28), np.uint8)
    assert timed(single, images, 1) > 0  # type: ignore[arg-type]
    assert single.sizes == [1] * 8
    timed(batched, images, 4)  # type: ignore[arg-type]
    assert batched.sizes == [8], "so that a cascade gathers images from all batches"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Case]:
    folder = tmp_path_factory.mktemp("cbnet-bench")
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (30, 28, 28)).astype(np.uint8)
    made = []
    for name, batch in (("cbnet_light", 1), ("branchynet", 8)):
        bundle = folder / f"{name}-{batch}"
        export_bundle(make_request(name, "random", (), ["onnx"], batch=batch), bundle)
        made.append((name, batch, bundle))
    np.savez(folder / "images.npz", images=images, classes=np.zeros(30, np.int64))
    return tuple(
        Case(
            system=system(name).model_copy(update={"precision": Precision.FP32}),
            batch=batch,
            bundle=str(bundle),
            images=str(folder / "images.npz"),
        )
        for name, batch, bundle in made
    )  # type: ignore[return-value]


def test_the_workers_time_and_judge_real_bundles(cases: tuple[Case, Case]) -> None:
    times = measure(TimeJob(engine="onnxruntime", cases=cases, turns=3, images=16, threads=1))
    assert [len(one.mean_ns) for one in times.times] == [3, 3]
    light, branchynet = judge(JudgeJob(engine="onnxruntime", cases=cases, threads=1)).judgements
    assert light.exit_rate is None
    assert branchynet.exit_rate is not None
    assert round(30 * light.accuracy) == pytest.approx(30 * light.accuracy)


def test_the_counting_worker_counts_every_image(
    cases: tuple[Case, Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    from phoneward.apps.bench.cbnet.counting import counted
    from phoneward.apps.bench.cbnet.records import CountJob
    from phoneward.profiles.energy.counters import Reading

    class Steady:
        """A counter of 2 W, and of 1 W when it is asked again for the idle span."""

        name, resolution_s = "steady", 0.001

        def __init__(self) -> None:
            self.starts = 0

        def available(self) -> None:
            return None

        def start(self) -> Any:
            import time

            self.starts += 1
            began, watts = time.monotonic(), 2 if self.starts == 1 else 1

            class Running:
                def stop(self) -> Reading:
                    seconds = time.monotonic() - began
                    return Reading(joules=watts * seconds, seconds=seconds, domain="all")

            return Running()

    job = CountJob(engine="onnxruntime", counter="steady", cases=cases[:1], images=20, threads=1)
    energy = counted(cases[0], job, Steady())
    assert energy.provenance == "measured"
    assert energy.inferences % 20 == 0
    assert energy.joules == pytest.approx(2 * energy.seconds / energy.inferences, rel=0.05)
    assert energy.above_idle_joules == pytest.approx(energy.joules / 2, rel=0.1)


def test_a_page_is_written_with_its_data(tmp_path: Path) -> None:
    from phoneward.apps.bench.options import write_page

    write_page(tmp_path / "cbnet.md", render(results(), []), results())
    again = Results.model_validate_json((tmp_path / "cbnet.json").read_text())
    assert again == results()

"""EfficientTAM's benchmark: whole frames, operations, calm turns, and a page that tells all."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from phoneward.apps.bench import bystanders, tam_keys, tam_page, tam_run
from phoneward.apps.bench.bystanders import quiet, with_bystanders
from phoneward.apps.bench.child import run_child
from phoneward.apps.bench.efficienttam import main
from phoneward.apps.bench.records import Machine, to_json
from phoneward.apps.bench.stats import Series
from phoneward.apps.bench.tam_prepare import flat, full_bank
from phoneward.apps.bench.tam_records import (
    ATTENDS,
    FRAME,
    StageAgreement,
    StageFailure,
    StageFile,
    StageMeasurement,
    StageSet,
    StageSubject,
    StageTiming,
    TamResults,
    TimeStages,
    Work,
)
from phoneward.apps.bench.tam_run import StageBench, StagePlan, StageShop
from phoneward.apps.bench.tam_stats import TRACKED, operations, peaks, stage_series
from phoneward.apps.bench.tam_worker import take_turns
from phoneward.bundle import Bundle, Delegation
from phoneward.profiles.measure.local import noise
from tests.efficienttam_stages import small_stages

MODEL = "efficienttam_ti_512x512"
MACHINE = Machine(cpu="a processor", cores=2, system="a system", versions={"torch": "2.9"})
NS = 1_000_000


def subject(engine: str, bank: str = "exact", form: str = "rewritten") -> StageSubject:
    return StageSubject.model_validate({"bank": bank, "engine": engine, "form": form})


def measurement(one: StageSubject, number: int, **milliseconds: list[float]) -> StageMeasurement:
    samples = {name: tuple(round(NS * ms) for ms in taken) for name, taken in milliseconds.items()}
    timing = StageTiming(samples_ns=samples)
    return StageMeasurement(subject=one, round=number, timing=timing, others=0.02, tries=1)


# figures


def test_a_frame_is_the_sum_of_its_stages_run_by_run() -> None:
    one = subject("litert")
    table = stage_series(
        [measurement(one, 0, encode=[1, 9, 2], propagate=[1, 1, 9], memorize=[1, 1, 1], prompt=[7])]
    )
    # the sums are 3, 11 and 12; the sum of the medians would be 4
    assert table[one, TRACKED] == Series({0: 11.0})
    assert table[one, "encode"] == Series({0: 2.0})
    assert table[one, "prompt"] == Series({0: 7.0})


def test_without_all_stages_there_is_no_frame() -> None:
    one = subject("litert", form="plain")
    assert set(stage_series([measurement(one, 0, encode=[1.0])])) == {(one, "encode")}


def test_the_stages_of_a_frame_take_turns() -> None:
    order: list[str] = []
    runs = {
        name: lambda name=name: order.append(name)
        for name in ("prompt", "memorize", "encode", "propagate")
    }
    samples = take_turns(runs, 2)
    assert order == [*FRAME, *FRAME, "prompt", "prompt"]
    assert {name: len(taken) for name, taken in samples.items()} == dict.fromkeys(runs, 2)


def test_operations_are_those_of_what_runs() -> None:
    results = recorded()
    assert operations(results, subject("pytorch", form="plain"), TRACKED) == 30e9
    assert operations(results, subject("litert"), TRACKED) == 24e9
    assert operations(results, subject("litert", form="plain"), TRACKED) == 30e9
    assert operations(results, subject("litert"), "encode") == 8e9


def test_the_peak_is_that_of_a_matrix_product() -> None:
    one = subject("torch.mm", form="plain")
    products = {"2048x2048x2048": [100.0], "1024x256x7232": [50.0]}
    found = peaks(stage_series([measurement(one, 0, **products)]))
    assert found["2048x2048x2048"] == pytest.approx(171.8, abs=0.1)
    assert found["1024x256x7232"] == pytest.approx(75.8, abs=0.1)


# a machine that others use


def test_bystanders_are_what_is_left_of_the_processors_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat, ticks = tmp_path / "stat", 100
    monkeypatch.setattr(noise, "_STAT", stat)
    monkeypatch.setattr("os.sysconf", lambda name: ticks)
    mine = iter((1.0, 1.1))
    monkeypatch.setattr(bystanders, "_mine_s", lambda: next(mine))
    # user nice system idle iowait irq softirq steal guest
    stat.write_text("cpu  100 0 50 9000 70 0 10 5 0\n")

    def work() -> str:
        time.sleep(0.2)
        stat.write_text("cpu  110 5 55 9500 90 1 11 8 0\n")
        return "done"

    answer, others = with_bystanders(work)
    assert answer == "done"
    # 0.25 s busy, 0.1 s of them mine, in 0.2 s
    assert others == pytest.approx(0.15 / 0.2, rel=0.2)
    monkeypatch.setattr(noise, "_STAT", tmp_path / "absent")
    monkeypatch.undo()


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_the_lock_is_held_once_it_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    readings = iter([0.9, 0.5, 0.05])
    monkeypatch.setattr(bystanders, "with_bystanders", lambda work: (None, next(readings)))
    monkeypatch.setattr(bystanders, "_PAUSE_S", 0.0)
    lock = tmp_path / "lock"
    with quiet(lock):
        assert list(readings) == []
        with lock.open("a") as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    monkeypatch.setattr(bystanders, "with_bystanders", lambda work: (None, 2.0))
    monkeypatch.setattr(bystanders, "_PATIENCE_S", 0.0)
    with quiet(None):  # patience has an end
        pass


def test_where_the_system_does_not_tell_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise, "_STAT", tmp_path / "absent")
    assert with_bystanders(lambda: 3) == (3, None)


@pytest.mark.parametrize(
    ("cores", "kept", "tries"),
    [([0.01], 0.01, 1), ([0.5, 0.02], 0.02, 2), ([0.4, 0.3, 0.5], 0.3, 3)],
)
def test_a_disturbed_turn_is_taken_again(
    cores: list[float], kept: float, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter(cores)
    timing = StageTiming(samples_ns={"encode": (1,)})
    monkeypatch.setattr(bystanders, "_PROBE_S", 0.0)
    monkeypatch.setattr(noise, "_STAT", Path("absent"))
    monkeypatch.setattr(tam_run, "with_bystanders", lambda work: (timing, next(readings)))
    plan = StagePlan(MODEL, ("exact",), ("litert",), 1, 1, 1, None)
    bench = StageBench(plan, StageShop(Path("absent"), plan), lambda *_: None)
    bench.measure([subject("litert")])
    (taken,) = bench.measurements
    assert (taken.others, taken.tries) == (kept, tries)


# page


def recorded(exact: float = 500.0, pooled: float = 300.0, slow: float = 1.2) -> TamResults:
    eager, plain = subject("pytorch", form="plain"), subject("onnxruntime", form="plain")
    frames = {
        eager: 4 * exact,
        subject("litert"): exact,
        subject("onnxruntime"): slow * exact,
        plain: 2 * exact,
        subject("pytorch", "pooled", "plain"): 2 * pooled,
        subject("litert", "pooled"): pooled,
    }
    shares = dict(zip(FRAME, (0.2, 0.7, 0.1), strict=True))
    taken = [
        measurement(one, number, **{s: [ms * share * (1 + number)] for s, share in shares.items()})
        for number in range(3)
        for one, ms in frames.items()
    ]
    taken.append(measurement(subject("torch.mm", form="plain"), 0, **{"2048x2048x2048": [100.0]}))
    taken[0] = taken[0].model_copy(update={"others": 0.08, "tries": 2})
    file = StageFile(
        stage="encode",
        path="encode.tflite",
        seconds=3.0,
        bytes=1_500_000,
        inputs=(),
        outputs=(),
        delegation=Delegation(
            delegate="XNNPACK", partitions=2, delegated_ops=9, fallback={"SUM": 3}
        ),
    )
    work = [
        Work.model_validate(
            {"bank": bank, "stage": stage, "format": name, "operations": 1e9 * each}
        )
        for bank in ("exact", "pooled")
        for stage in FRAME
        for name, each in ((None, 10), ("tflite", 8), ("onnx", 8), ("executorch", 9))
    ]
    return TamResults(
        machine=MACHINE,
        date="2026-01-02",
        command="a command",
        model=MODEL,
        rounds=3,
        runs=1,
        threads=2,
        work=tuple(work),
        sets=(StageSet(bank="exact", form="rewritten", format="tflite", files=(file,)),),
        failures=(StageFailure(subject=plain, error="memorize: no a|b"),),
        measurements=tuple(taken),
        agreements=(StageAgreement(subject=plain, relative=2e-6, where="encode/features"),),
    )


def section(text: str, title: str) -> list[list[str]]:
    """The rows of the tables in one section, without the heads."""
    (body,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    rows = [line for line in body.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_targets_are_judged_by_the_numbers() -> None:
    text = tam_page.render(recorded(exact=250.0, pooled=170.0))  # typical: round 2, twice that
    assert "3 of 3 reached" in text
    assert [row[1:] for row in section(text, "Targets")[2:]] == [
        ["500 ms (litert)", "reached"],
        ["1.20", "reached"],
        ["340 ms (litert)", "reached"],
    ]
    text = tam_page.render(recorded(exact=271.0, pooled=176.0, slow=1.31))
    assert "0 of 3 reached" in text
    assert [row[2] for row in section(text, "Targets")[2:]] == ["**missed**"] * 3


def test_the_page_quotes_times_ratios_and_work() -> None:
    text = tam_page.render(recorded(exact=250.0))
    eager, litert, *_ = section(text, "Stages")[2:]
    # typical and best
    assert eager[:6] == [
        "exact", "PyTorch eager", "400.0 / 200.0", "1400.0 / 700.0", "200.0 / 100.0",
        "2000.0 / 1000.0",
    ]  # fmt: skip
    assert litert[5:] == ["500.0 / 250.0", "–"]
    against = {tuple(row[:2]): row[5] for row in section(text, "Against eager PyTorch")[2:]}
    assert against["exact", "litert"] == "0.25"
    assert against["pooled", "litert"] == "0.50"
    frame = next(row for row in section(text, "Work")[2:] if row[1] == TRACKED)
    # 30 GFLOP in 2 s, 24 GFLOP in 0.5 s, of 172 GFLOP/s
    assert frame[2:6] == ["30.00", "24.00", "15 (9%)", "48 (28%)"]


def test_the_page_says_what_the_rewrites_save() -> None:
    rows = section(tam_page.render(recorded(exact=250.0)), "What the rewrites save")
    assert rows[-1] == [
        "onnxruntime", TRACKED, "1000.0 / 500.0", "600.0 / 300.0", "0.60", "30.00", "24.00",
    ]  # fmt: skip


def test_the_page_tells_files_failures_and_disturbances() -> None:
    text = tam_page.render(recorded())
    assert ["exact", "rewritten", "tflite", "encode", "1.5", "3.0", "2, 3"] in section(
        text, "Files"
    )
    assert "- exact onnxruntime plain: memorize: no a|b" in text
    assert "at most 0.08 cores busy" in text
    assert "1 of 19 turns were taken again" in text
    assert "a processor, 2 cores, a system" in text


def test_records_survive_their_file() -> None:
    assert TamResults.model_validate_json(to_json(recorded())) == recorded()


def test_the_page_says_what_a_cache_would_save() -> None:
    results = recorded()
    assert "What was not kept" not in tam_page.render(results)
    more = [
        measurement(subject("litert"), n, attend_projected=[10.0 + n], attend_given=[8.0 + 2 * n])
        for n in range(3)
    ]
    results = results.model_copy(update={"measurements": (*results.measurements, *more)})
    text = tam_page.render(results)
    row = section(text, "What was not kept")[-1]
    assert row == ["litert", "11.0 / 10.0", "10.0 / 8.0", "1.0", "0.91"]
    assert "16 times as large" in text


# real stages


def test_keys_that_are_given_are_those_that_are_projected() -> None:
    stages = small_stages()
    generator = np.random.default_rng(0)
    given = {
        spec.name: generator.standard_normal(spec.shape).astype(np.float32)
        for spec in stages["propagate"].inputs
    }
    given["memory_age"] = np.array([[0, 1, 2, 3, -1, -1, -1]], np.float32)
    given["pointer_valid"] = np.arange(16, dtype=np.float32)[None] // 8
    inputs, answers = tam_keys.tensors(stages["propagate"].module, given)
    projected, keys = (answers[name]["attended"] for name in ATTENDS)
    assert np.abs(projected - keys).max() < 1e-5 * np.ptp(projected)
    for name, (_, stage) in tam_keys.graphs(stages["propagate"].module).items():
        assert {spec.name: spec.shape for spec in stage.inputs} == {
            key: tensor.shape for key, tensor in inputs[name].items()
        }


def test_a_bundle_is_timed_and_answers_as_pytorch(tam_bundle: Bundle, tmp_path: Path) -> None:
    from phoneward.export.models import find
    from phoneward.export.models.family import Knobs
    from phoneward.export.reference import run

    card, family = find(tam_bundle.manifest.model)
    card = family.configure(card, Knobs(memory_slots=2))
    modules = family.build(card, None)
    inputs = full_bank(card, modules)
    assert (inputs["propagate"]["memory_age"] == [[0, 1]]).all()
    assert inputs["propagate"]["pointer_valid"].all()
    np.savez(tmp_path / "tensors.npz", allow_pickle=False, **flat(inputs))
    files = [
        StageFile(
            stage=artifact.stage,
            path=str(tam_bundle.file(artifact)),
            seconds=1.0,
            bytes=artifact.bytes,
            inputs=artifact.inputs,
            outputs=artifact.outputs,
        )
        for artifact in tam_bundle.manifest.artifacts
    ]
    job = TimeStages(
        model=tam_bundle.manifest.model,
        subject=subject("onnxruntime"),
        files=tuple(files),
        tensors=str(tmp_path / "tensors.npz"),
        answer=str(tmp_path / "answer.npz"),
        runs=2,
        threads=1,
    )
    timing = run_child("tam_worker", job, StageTiming, tmp_path / "time")
    assert {name: len(taken) for name, taken in timing.samples_ns.items()} == dict.fromkeys(
        (*FRAME, "prompt"), 2
    )
    with np.load(tmp_path / "answer.npz") as answers:
        for stage in card.stages:
            for name, expected in run(modules[stage.name], stage, inputs[stage.name]).items():
                error = np.abs(answers[f"{stage.name}/{name}"] - expected).max()
                assert error < 1e-4 * max(1.0, np.abs(expected).max())


def test_a_matrix_product_is_timed(tmp_path: Path) -> None:
    job = TimeStages(
        model=MODEL,
        subject=subject("torch.mm", form="plain"),
        files=(),
        tensors="",
        answer=str(tmp_path / "answer.npz"),
        runs=1,
        threads=1,
    )
    timing = run_child("tam_worker", job, StageTiming, tmp_path / "time")
    assert min(taken[0] for taken in timing.samples_ns.values()) > NS


def test_unknown_names_are_answered_with_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--work", str(tmp_path / "w"), "-o", str(tmp_path / "o.md")]
    for option, name, known in (
        ("--model", "mobilevit_s", MODEL),
        ("--engines", "coreml", "litert, executorch, onnxruntime"),
        ("--banks", "empty", "exact, pooled"),
    ):
        assert main([option, name, *out]) == 2
        assert f"'{name}'; known: {known}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.matrix
def test_a_real_benchmark_end_to_end(tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    arguments = ["--banks", "exact", "--engines", "onnxruntime", "--rounds", "1", "--runs", "1"]
    assert main([*arguments, "--work", str(tmp_path / "work"), "-o", str(out)]) == 0
    results = TamResults.model_validate_json(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert results.failures == ()
    assert [m.subject.engine for m in results.measurements] == [
        "torch.mm", "pytorch", "onnxruntime", "onnxruntime",
    ]  # fmt: skip
    assert all(agreement.relative < 1e-4 for agreement in results.agreements)
    assert operations(results, subject("onnxruntime"), "propagate") > 30e9
    text = out.read_text(encoding="utf-8")
    assert text == tam_page.render(results)
    assert str(tmp_path) not in text + out.with_suffix(".json").read_text(encoding="utf-8")

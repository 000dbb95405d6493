"""The benchmark: fair turns, honest figures, and a page that says what was measured."""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phoneward.apps.bench import page, worker
from phoneward.apps.bench.__main__ import main
from phoneward.apps.bench.child import ChildError, run_child, without_folders
from phoneward.apps.bench.matrix import Matrix
from phoneward.apps.bench.matrix import main as matrix_main
from phoneward.apps.bench.matrix_page import render as render_matrix
from phoneward.apps.bench.matrix_worker import Cell, cell_file, keep
from phoneward.apps.bench.records import (
    Agreement,
    Conversion,
    ConvertJob,
    Failure,
    Machine,
    Measurement,
    OpTime,
    Profile,
    Results,
    Subject,
    TimeJob,
    Timing,
    to_json,
)
from phoneward.apps.bench.stats import Series, fastest_naive, paired_ratio, series
from phoneward.apps.bench.turns import schedule, take_turns
from phoneward.apps.bench.worker import warm_up
from phoneward.names import ParityStatus, Precision
from phoneward.profiles.measure.local.steadiness import sample

SMALL = "mobilenetv3_small_100"
MACHINE = Machine(cpu="a processor", cores=2, system="a system", versions={"torch": "2.9"})

times = st.floats(min_value=1e-3, max_value=1e6)
rounds = st.dictionaries(st.integers(0, 9), times, min_size=1)


def subject(engine: str, variant: str, model: str = "a") -> Subject:
    return Subject.model_validate({"model": model, "engine": engine, "variant": variant})


def measurement(one: Subject, number: int, *milliseconds: float) -> Measurement:
    samples = tuple(round(ms * 1e6) for ms in milliseconds)
    timing = Timing(load_ns=1, first_ns=1, warmup=10, steady=True, samples_ns=samples)
    return Measurement(subject=one, round=number, timing=timing)


# turns


def by_model(one: Subject) -> str:
    return one.model


def test_rounds_alternate_the_order_and_keep_pairs_together() -> None:
    pairs = [subject("x", "ours"), subject("x", "naive"), subject("y", "ours")]
    other = subject("x", "ours", model="b")
    groups = list(schedule([*pairs, other], 3, by_model))
    assert groups == [
        [(0, one) for one in pairs],
        [(0, other)],
        [(1, one) for one in reversed(pairs)],
        [(1, other)],
        [(2, one) for one in pairs],
        [(2, other)],
    ]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), unique=True),
    st.integers(1, 5),
)
def test_every_subject_has_one_turn_in_every_round(names: list[tuple[str, str]], n: int) -> None:
    subjects = [subject(engine, "ours", model) for model, engine in names]
    taken: list[tuple[int, Subject]] = []
    take_turns(
        schedule(subjects, n, by_model), lambda number, one: taken.append((number, one)), None
    )
    assert sorted(taken, key=str) == sorted(((r, s) for r in range(n) for s in subjects), key=str)
    assert [number for number, _ in taken] == sorted(number for number, _ in taken)


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_a_round_holds_the_lock(tmp_path: Path) -> None:
    import fcntl

    lock = tmp_path / "lock"
    refused = []

    def measure(number: int, one: Subject) -> None:
        with lock.open("a") as stream, pytest.raises(BlockingIOError):
            refused.append(one)
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)

    take_turns(schedule([subject("x", "ours")], 1, by_model), measure, lock)
    assert refused
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


# figures


def test_series_are_medians_by_round_in_milliseconds() -> None:
    ours = subject("x", "ours")
    table = series([measurement(ours, 0, 5, 1, 2), measurement(ours, 1, 4, 4, 100)])
    assert table == {ours: Series({0: 2.0, 1: 4.0})}
    assert (table[ours].best, table[ours].typical) == (2.0, 3.0)


@given(rounds, st.floats(min_value=0.1, max_value=10), st.dictionaries(st.integers(0, 9), times))
def test_a_drift_that_both_see_leaves_the_ratio_alone(
    naive: dict[int, float], ratio: float, drift: dict[int, float]
) -> None:
    slowed = {r: t * drift.get(r, 1.0) for r, t in naive.items()}
    ours = {r: t * ratio for r, t in slowed.items()}
    found = paired_ratio(Series(ours), Series(slowed))
    assert found == pytest.approx(ratio)


@given(rounds, rounds)
def test_the_ratio_lies_within_those_of_the_common_rounds(
    a: dict[int, float], b: dict[int, float]
) -> None:
    found = paired_ratio(Series(a), Series(b))
    ratios = [a[r] / b[r] for r in a if r in b]
    if not ratios:
        assert found is None
    else:
        assert found == statistics.median(ratios)
        assert min(ratios) <= found <= max(ratios)


def test_the_fastest_naive_engine_is_of_the_model_and_not_eager() -> None:
    table = {
        subject("x", "naive"): Series({0: 3.0}),
        subject("y", "naive"): Series({0: 2.0}),
        subject("y", "ours"): Series({0: 1.0}),
        subject("pytorch", "naive"): Series({0: 0.5}),
        subject("x", "naive", model="b"): Series({0: 0.1}),
    }
    assert fastest_naive(table, "a") == subject("y", "naive")
    assert fastest_naive(table, "c") is None


def test_warm_up_ends_when_two_windows_agree() -> None:
    calls = itertools.count()

    def settled() -> None:
        next(calls)
        time.sleep(0.02)

    runs, steady = warm_up(settled)
    assert steady
    assert runs == next(calls) >= 10


def test_warm_up_gives_up_on_what_never_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "AT_MOST_S", 0.4)
    calls = itertools.count()
    _, steady = warm_up(lambda: time.sleep(0.002 * (1 + next(calls) // 5)))
    assert not steady


def test_samples_are_as_many_as_asked_for_and_span_the_call() -> None:
    durations = sample(lambda: time.sleep(0.002), 4)
    assert len(durations) == 4
    assert all(ns >= 2_000_000 for ns in durations)


# page


def recorded() -> Results:
    ours, naive = subject("litert", "ours"), subject("litert", "naive")
    slow, other = subject("onnxruntime", "ours"), subject("onnxruntime", "naive")
    eager = subject("pytorch", "naive")
    taken = [
        measurement(one, number, ms * (1 + number))
        for number in range(2)
        for one, ms in ((ours, 2.0), (naive, 4.0), (slow, 6.0), (other, 8.0), (eager, 9.0))
    ]

    def agreed(engine: str) -> Agreement:
        return Agreement(
            model="a",
            engine=engine,
            naive_max_abs=1e-5,
            naive_relative=1e-6,
            torch_max_abs=2e-5,
            torch_relative=2e-6,
        )

    conversion = Conversion.model_validate(
        {
            "model": "a",
            "format": "onnx",
            "variant": "ours",
            "path": "a.onnx",
            "seconds": 3.0,
            "bytes": 1_500_000,
            "inputs": [],
            "outputs": [],
        }
    )
    return Results(
        machine=MACHINE,
        date="2026-01-02",
        command="python -m phoneward.apps.bench",
        rounds=2,
        runs=1,
        threads=2,
        conversions=(conversion,),
        failures=(Failure(model="a", format="executorch", variant="naive", error="no a|b"),),
        measurements=tuple(taken),
        agreements=(agreed("litert"), agreed("onnxruntime")),
        profiles=(
            Profile(
                model="a",
                engine="onnxruntime",
                ops=(
                    OpTime(name="Conv", count=3, milliseconds=6.0),
                    OpTime(name="Gemm", count=1, milliseconds=2.0),
                ),
            ),
        ),
    )


def rows(text: str, first: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_page_quotes_medians_ratios_and_machine() -> None:
    text = page.render(recorded())
    litert, onnx, eager, *_ = rows(text, "a")
    assert litert[1:8] == ["litert", "2.00", "3.00", "4.00", "6.00", "0.50", "0.50"]
    assert onnx[1:8] == ["onnxruntime", "6.00", "9.00", "8.00", "12.00", "0.75", "1.50"]
    assert eager[1:6] == ["PyTorch eager", "", "", "9.00", "13.50"]
    assert "a processor, 2 cores, a system" in text
    assert "torch 2.9" in text
    assert "`python -m phoneward.apps.bench`" in text


def test_a_miss_is_named_with_the_operator_to_blame() -> None:
    text = page.render(recorded())
    assert page.missed(recorded()) == [subject("onnxruntime", "ours")]
    assert "1 of 2 reached." in text
    assert (
        "- missed: a on onnxruntime: 1.50 of the fastest naive engine (litert); "
        "0.75 of its naive twin; most of it: 3 Conv take 6.00 ms\n" in text
    )
    assert rows(text, "Conv") == [["Conv", "3", "6.000", "75%"]]


def test_an_artifact_slower_than_its_naive_twin_is_a_miss() -> None:
    """Also where it reaches the fastest naive engine's time."""
    results = recorded()
    slower = tuple(
        measurement(m.subject, m.round, 4.2 * (1 + m.round))
        if m.subject == subject("litert", "ours")
        else m
        for m in results.measurements
    )
    results = results.model_copy(update={"measurements": slower})
    assert subject("litert", "ours") in page.missed(results)
    assert "a on litert: 1.05 of the fastest naive engine (litert); 1.05 of its" in page.render(
        results
    )


def test_a_failed_conversion_is_quoted_and_cannot_break_the_table() -> None:
    text = page.render(recorded())
    assert "- a as executorch, naive: no a|b" in text
    assert page.markdown_table(["x"], [["a|b"]]).endswith("| a\\|b |\n")


@pytest.mark.parametrize("error", [0.5, math.nan, math.inf])
def test_a_fast_wrong_model_reaches_nothing(error: float) -> None:
    results = recorded()
    wrong = results.agreements[0].model_copy(update={"torch_relative": error})
    results = results.model_copy(update={"agreements": (wrong, results.agreements[1])})
    assert subject("litert", "ours") in page.missed(results)
    text = page.render(results)
    assert "0 of 2 reached." in text
    assert "wrong" in rows(text, "a")[0][8]


def test_the_json_beside_the_page_is_whole() -> None:
    assert Results.model_validate_json(to_json(recorded())) == recorded()


# child processes


def test_a_child_that_refuses_gives_its_reason_in_one_line(tmp_path: Path) -> None:
    job = TimeJob(
        subject=subject("onnxruntime", "ours"),
        path=str(tmp_path / "absent.onnx"),
        inputs=(),
        outputs=(),
        tensor="",
        answer=str(tmp_path / "answer.npy"),
        runs=1,
        threads=1,
    )
    with pytest.raises(ChildError, match=r"^\S*absent\.onnx: no such file$"):
        run_child("worker", job, Timing, tmp_path / "run")


def test_a_child_that_breaks_gives_its_last_line(tmp_path: Path) -> None:
    job = ConvertJob(model=SMALL, format="smoke", variant="ours", folder=".", threads=1)
    with pytest.raises(ChildError, match="^KeyError: 'smoke'$"):
        run_child("convert", job, Conversion, tmp_path / "run")
    assert "Traceback" in (tmp_path / "run.log").read_text(encoding="utf-8")


def test_an_error_does_not_tell_where_packages_are_installed() -> None:
    error = "passes: /home/me/.venv/lib/python3.11/site-packages/timm/a.py:4: 'tfl.mul' op"
    assert without_folders(error) == "passes: timm/a.py:4: 'tfl.mul' op"


# matrix


def test_the_matrix_page_tells_artifacts_from_failures() -> None:
    common = {"model": "a", "precision": Precision.FP32, "seconds": 4.2, "bytes": 2_000_000}
    cells = [
        Cell(
            format="onnx",
            status=ParityStatus.OK,
            relative_error=3e-6,
            top1_agreement=1.0,
            **common,  # type: ignore[arg-type]
        ),
        Cell(format="coreml", status=ParityStatus.NOT_EXECUTED, **common),  # type: ignore[arg-type]
        Cell(
            format="tflite",
            status=ParityStatus.FAILED,
            relative_error=0.5,
            top1_agreement=0.8,
            error="logits: far off",
            **common,  # type: ignore[arg-type]
        ),
        Cell(model="a", format="executorch", precision=Precision.FP32, error="refused"),
    ]
    text = render_matrix(cells, MACHINE, "a command")
    assert rows(text, "a") == [
        [
            "a",
            "ok 3e-06, 100%, 2.0 MB, 4 s",
            "not executed here, 2.0 MB, 4 s",
            "**failed** 5e-01, 80%, 2.0 MB, 4 s",
            "failed",
        ]
    ]
    assert "1 of 4 cells have an artifact that agrees" in text
    assert "1 more have one that was not executed here, 2 failed." in re.sub(r"\s+", " ", text)
    assert "- a as tflite-fp32: logits: far off\n- a as executorch-fp32: refused\n" in text


def test_an_interrupted_matrix_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    columns = (("onnx", Precision.FP32), ("onnx", Precision.FP16), ("tflite", Precision.FP32))
    matrix = Matrix(("a",), columns, tmp_path, None)
    done = Cell(model="a", format="onnx", precision=Precision.FP32, error="refused")
    keep(done, tmp_path)
    assert matrix.missing("a") == list(columns[1:])
    # a name that is not in the zoo fails in the child, cell by cell, and the loop ends
    matrix.fill("a")
    assert matrix.missing("a") == []
    kept = matrix.cells()
    assert kept[0] == done
    assert all("unknown model 'a'" in str(cell.error) for cell in kept[1:])


def test_a_matrix_of_one_real_export(tmp_path: Path) -> None:
    out = tmp_path / "matrix.md"
    arguments = ["--models", SMALL, "--formats", "onnx", "--work", str(tmp_path / "w")]
    assert matrix_main([*arguments, "-o", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    (row,) = rows(text, SMALL)
    assert re.fullmatch(r"ok \de-\d\d, 100%, 10\.\d MB, \d+ s", row[1])
    assert re.fullmatch(r"ok \de-\d\d, 100%, 5\.\d MB, \d+ s", row[2])
    (folder,) = (tmp_path / "w").iterdir()
    assert cell_file(folder, SMALL, "onnx", Precision.FP16).exists()


# the whole benchmark, once, small


def test_a_real_benchmark_end_to_end(tmp_path: Path) -> None:
    out = tmp_path / "docs" / "hybrids.md"
    arguments = ["--models", SMALL, "--engines", "onnxruntime", "--rounds", "1", "--runs", "3"]
    places = ["--work", str(tmp_path / "work"), "-o", str(out)]
    assert main([*arguments, *places, "--threads", "1", "--profile"]) == 0

    results = Results.model_validate_json(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert [m.subject.variant for m in results.measurements] == ["ours", "naive"]
    assert all(len(m.timing.samples_ns) == 3 for m in results.measurements)
    assert results.failures == ()
    assert (results.rounds, results.runs, results.threads) == (1, 3, 1)
    (agreement,) = results.agreements
    assert agreement.torch_relative < 1e-4
    assert agreement.naive_relative is not None
    assert 0 < agreement.naive_relative < 1e-4
    (profile,) = results.profiles
    assert profile.ops[0].milliseconds
    assert {"Conv"} <= {op.name for op in profile.ops}

    text = out.read_text(encoding="utf-8")
    assert text == page.render(results)
    assert str(tmp_path) not in text + out.with_suffix(".json").read_text(encoding="utf-8")
    assert f"--models {SMALL} --engines onnxruntime --rounds 1 --runs 3 --threads 1" in text

    # what was converted is kept: the answers are those of the first time, to the bit
    answers = sorted((tmp_path / "work" / "runs").glob("*.npy"))
    before = [np.load(answer) for answer in answers]
    records = {f: f.stat().st_mtime_ns for f in (tmp_path / "work").rglob("record.json")}
    assert main([*arguments, *places, "--threads", "1"]) == 0
    assert {f: f.stat().st_mtime_ns for f in records} == records
    assert len(records) == 2
    assert all(np.array_equal(a, np.load(f)) for a, f in zip(before, answers, strict=True))


def test_unknown_names_are_answered_with_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--work", str(tmp_path / "w"), "-o", str(tmp_path / "o.md")]
    assert main(["--models", "nonesuch", *out]) == 2
    assert re.search(r"unknown model 'nonesuch'; known: .*mobilevit_s,", capsys.readouterr().err)
    assert main(["--models", "efficienttam_ti", *out]) == 2
    assert "unknown classifier 'efficienttam_ti'; known: effi" in capsys.readouterr().err
    assert main(["--engines", "coreml", *out]) == 2
    assert "known: executorch, litert, onnxruntime, pytorch" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_only_measured_results_are_read() -> None:
    content = json.loads(to_json(recorded()))
    content["provenance"] = "predicted"
    with pytest.raises(ValueError, match="provenance"):
        Results.model_validate(content)

"""`phoneward calibrate`: measurements in, a device that `predict` knows out; what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest

from phoneward.apps.cli.anchors import read_anchors
from phoneward.errors import OutputError, PhonewardError, PredictionError, ReportError, UnknownName
from phoneward.names import Precision, Provenance
from phoneward.profiles.kernels import Kernel
from phoneward.profiles.predict.calibrate import Anchor, calibrate
from phoneward.profiles.predict.own import find_device, keep, own_names
from phoneward.profiles.predict.predictor import Target, predict_stage
from phoneward.profiles.report.file import write_report
from phoneward.profiles.report.schema import (
    Aggregate,
    LatencyReport,
    Machine,
    Measured,
    Predicted,
    StageReport,
    Subject,
)
from tests.command_line import run_at_home as run

TABLE = """model,latency_ms,runtime,precision,unit
timm:mobilenetv3_small_050@64,5,tflite,fp32,cpu
timm:mobilenetv2_035@64,9,tflite,fp32,cpu
timm:resnet10t@64,30,tflite,fp32,cpu
"""


def layers(channels: int) -> tuple[Kernel, ...]:
    one = Kernel(
        kind="pointwise", ops=("aten.conv2d",), macs=784 * channels**2, reads=784 * channels,
        writes=784 * channels, params=channels**2, in_shape=(1, channels, 28, 28),
        out_shape=(1, channels, 28, 28),
    )  # fmt: skip
    return (one,) * 12


def report(channels: int, milliseconds: float, **changes: object) -> LatencyReport:
    measured = Measured(samples_ns=(int(milliseconds * 1e6),) * 3)
    stage = StageReport(
        stage="classify", format="tflite", precision=Precision.FP32, unit="cpu",
        kernels=layers(channels), result=measured,
    ).model_copy(update=changes)  # fmt: skip
    return LatencyReport(
        provenance=Provenance(stage.result.provenance),
        created=datetime(2026, 1, 1, tzinfo=timezone.utc),
        phoneward="0",
        place="adb:1",
        subject=Subject(model="mine"),
        machine=Machine(name="my phone"),
        stages=(stage,),
    )


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    folder = tmp_path / "reports"
    folder.mkdir()
    for number, channels in enumerate((32, 64, 96, 128, 192)):
        write_report(report(channels, 0.002 * channels**1.5), folder / f"{number}.json")
    return folder


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def test_reports_become_a_device_that_predict_knows(tmp_path: Path, reports: Path) -> None:
    made = run("calibrate", "--device", "my-phone", "--from", reports, "--json", home=tmp_path)
    assert made.returncode == 0, made.stderr
    document = json.loads(made.stdout)
    assert document["anchors"] == len(document["checked"]) == 5
    assert document["median_error"] < 0.5
    assert own_names() == ("my-phone",)
    name, calibration = find_device("my-phone")
    assert calibration is not None
    graph = read_anchors(reports)[2]
    target = Target(name, "tflite", "cpu", Precision.FP32)
    predicted = predict_stage(graph.kernels, target, calibration)
    assert predicted.latency_ms == pytest.approx(graph.latency_ms, rel=0.3)
    assert "own measurements of my-phone" in predicted.basis


def test_a_table_of_names_serves_as_well_and_a_file_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "times.csv").write_text(TABLE)
    arguments = ("--device", "slow", "--like", "raspberry-pi-4", "-o", "slow.json")
    made = run("calibrate", "--from", "times.csv", *arguments, home=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "slow: 3 measurements, each predicted from the others" in made.stdout
    assert own_names() == ()
    asked = ("timm:mobilenetv2_035@64", "--device", "./slow.json", "--json")
    found = run("predict", *asked, home=tmp_path)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["latency_ms"] == pytest.approx(9, rel=0.5)


def test_a_model_is_not_checked_against_itself(tmp_path: Path) -> None:
    folder = tmp_path / "alike"
    folder.mkdir()
    for number in range(3):
        write_report(report(64, 1), folder / f"{number}.json")
    arguments = ("calibrate", "--device", "my-phone", "--from", folder)
    said = run(*arguments, home=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "All are of one model" in said.stdout
    assert "Median error" not in said.stdout
    write_report(report(96, 3), folder / "other.json")
    document = json.loads(run(*arguments, "--json", home=tmp_path).stdout)
    # three times from the one, which is much slower for its size, or once from the three
    assert len(document["checked"]) == 4
    assert all(
        abs(row["from_the_others_ms"] / row["latency_ms"] - 1) > 0.05 for row in document["checked"]
    )


def test_an_aggregate_is_a_time_too(tmp_path: Path) -> None:
    result = Measured(aggregate=Aggregate(source="benchmark_model", count=50, mean_ns=2e6))
    for number, channels in enumerate((32, 64, 96)):
        write_report(report(channels, 1, result=result), tmp_path / f"{number}.json")
    assert [anchor.latency_ms for anchor in read_anchors(tmp_path)] == [2.0, 2.0, 2.0]


def test_the_median_of_the_samples_counts(tmp_path: Path) -> None:
    result = Measured(samples_ns=(1_000_000, 3_000_000, 90_000_000))
    for number in range(3):
        write_report(report(64, 1, result=result), tmp_path / f"{number}.json")
    assert [anchor.latency_ms for anchor in read_anchors(tmp_path)] == [3.0] * 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TABLE.replace("9,", "-9,"), "line 3: latency_ms -9 is no positive time"),
        (TABLE.replace("9,", "0,"), "line 3: latency_ms 0 is no positive time"),
        (TABLE.replace("9,", "nan,"), "line 3: latency_ms nan is no positive time"),
        (TABLE.replace("9,", ","), "line 3: no latency_ms"),
        (TABLE.replace("9,", "9 ms,"), "line 3: latency_ms '9 ms' is no number"),
        (TABLE.replace("latency_ms", "latency"), "no column latency_ms .a time carries its unit"),
        (TABLE.replace(",precision", ""), "no column precision"),
        (TABLE.replace(",unit", ",threads"), "unknown column threads"),
        (TABLE.replace("9,tflite", "9,caffe"), "line 3: no runtime 'caffe'"),
        (TABLE.replace("9,tflite,fp32", "9,tflite,fp7"), "line 3: no precision 'fp7'"),
        (
            TABLE.replace("resnet10t@64,30,tflite,fp32,cpu", "resnet10t@64,30,tflite,fp32,toaster"),
            "line 4: no unit 'toaster'",
        ),
        ("\n".join(TABLE.splitlines()[:3]), "has 2 measurements; a calibration needs at least 3"),
        ("model,latency_ms,runtime,precision\n", "has 0 measurements"),
        ("", "no column model"),
    ],
)
def test_a_bad_table_is_refused_by_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "times.csv"
    file.write_text(text)
    with pytest.raises(PredictionError, match=words):
        read_anchors(file)


def test_a_model_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "times.csv").write_text(TABLE.replace("mobilenetv3_small_050", "resnet1800"))
    with pytest.raises(UnknownName, match="resnet1800"):
        read_anchors(tmp_path / "times.csv")


def test_what_was_not_measured_is_refused(tmp_path: Path) -> None:
    guess = Predicted(latency_ms=1, interval_ms=(1, 2), basis="nothing")
    write_report(report(64, 1, result=guess), tmp_path / "guess.json")
    with pytest.raises(ReportError, match=r"guess.json: is predicted"):
        read_anchors(tmp_path)


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (lambda text: "{", "document"),
        (lambda text: '{"kind": "latency"}', "Field required"),
        (lambda text: text.replace('"samples_ns": [', '"samples_ns": [-1, '), "samples_ns"),
        (lambda text: text.replace('"samples_ns"', '"samples"'), "samples"),
    ],
)
def test_a_damaged_report_is_refused_by_file(
    reports: Path, damaged: Callable[[str], str], words: str
) -> None:
    file = reports / "2.json"
    file.write_text(damaged(file.read_text()))
    with pytest.raises(ReportError, match=r"2.json.*" + words):
        read_anchors(reports)


@pytest.mark.parametrize("changes", [{"precision": None}, {"format": None, "engine": None}])
def test_a_report_has_to_say_what_it_measured(tmp_path: Path, changes: dict[str, None]) -> None:
    write_report(report(64, 1, **changes), tmp_path / "vague.json")
    with pytest.raises(ReportError, match="does not say its format and precision"):
        read_anchors(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "My Phone"), "device"),
        (("--device", "my-phone", "--like", "pixel-99"), "unknown device 'pixel-99'"),
        (("--device", "my-phone", "-o", "nowhere/x.json"), "cannot write nowhere/x.json"),
    ],
)
def test_bad_arguments_are_one_clear_line_and_keep_nothing(
    tmp_path: Path, reports: Path, arguments: tuple[str, ...], words: str
) -> None:
    result = run("calibrate", "--from", reports, *arguments, home=tmp_path)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert own_names() == ()


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    for missing in (tmp_path / "none.csv", tmp_path / "none.json"):
        with pytest.raises(PhonewardError, match="none"):
            read_anchors(missing)


def test_own_calibrations_go_before_device_files_and_damage_is_told(reports: Path) -> None:
    anchors: list[Anchor] = read_anchors(reports)
    assert find_device("pixel-8") == ("pixel-8", None)
    path = keep(calibrate("pixel-8", anchors))
    assert find_device("pixel-8")[1] is not None
    path.write_text("{")
    with pytest.raises(PredictionError, match=r"pixel-8\.json: Invalid JSON"):
        find_device("pixel-8")
    with pytest.raises(UnknownName) as caught:
        find_device("pixel-99")
    assert "galaxy-s24" in caught.value.known
    with pytest.raises(OutputError):
        keep(calibrate("pixel-8", anchors), reports / "nowhere" / "x.json")

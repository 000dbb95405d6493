"""`phoneward predict` as a user meets it: names, bundles, devices, reports, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from phoneward.apps.cli.graphs import graphs_of
from phoneward.bundle import Artifact, Parity, sha256_of
from phoneward.errors import BundleError, PredictionError
from phoneward.names import ParityStatus, Precision
from phoneward.profiles.kernels import Kernel, StageKernels
from phoneward.profiles.report.file import read_report
from phoneward.profiles.report.schema import Predicted
from tests.command_line import run_at_home as run
from tests.conftest import STAGE, write_manifest

NAME = "timm:mobilenetv3_small_050@64"


def document(*arguments: object, home: Path) -> dict[str, Any]:
    result = run("predict", *arguments, "--json", home=home)
    assert result.returncode == 0, result.stderr
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def layer(module: str, channels: int) -> Kernel:
    return Kernel(
        kind="pointwise", ops=("aten.conv2d",), module=module, macs=28 * 28 * channels**2,
        reads=784 * channels, writes=784 * channels, params=channels**2,
        in_shape=(1, channels, 28, 28), out_shape=(1, channels, 28, 28),
    )  # fmt: skip


def artifact(folder: Path, format_name: str, stage: StageKernels | None) -> Artifact:
    file = folder / f"classify.{format_name}"
    file.write_bytes(b"nothing opens this")
    kernels = folder / "kernels" / f"{format_name}.json"
    if stage is not None:
        kernels.write_text(stage.model_dump_json())
    return Artifact(
        stage="classify",
        format=format_name,
        precision=Precision.FP32,
        path=file.name,
        bytes=file.stat().st_size,
        sha256=sha256_of(file),
        inputs=STAGE.inputs,
        outputs=STAGE.outputs,
        parity=Parity(status=ParityStatus.NOT_EXECUTED, reason="a test"),
        kernels=f"kernels/{kernels.name}" if stage else None,
        kernels_sha256=sha256_of(kernels) if stage else None,
    )


def graph(**unknown: int) -> StageKernels:
    layers = tuple(layer(f"features.{i}", 64 + 8 * i) for i in range(60))
    return StageKernels(stage="classify", kernels=layers, unknown=unknown)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle: ONNX has kernels, TFLite an unknown op as well, Core ML none at all."""
    (tmp_path / "kernels").mkdir()
    made = {"onnx": graph(), "tflite": graph(**{"aten.fft": 1}), "coreml": None}
    for name in ("labels.txt", "reference.npz"):
        (tmp_path / name).write_bytes(b"x")
    write_manifest(tmp_path, [artifact(tmp_path, name, stage) for name, stage in made.items()])
    return tmp_path


def test_a_name_is_predicted_with_all_that_was_promised(tmp_path: Path) -> None:
    found = document(NAME, "--device", "galaxy-s24", home=tmp_path)
    low, high = found["interval_ms"]
    assert 0 < low < found["latency_ms"] < high
    assert found["provenance"] == "predicted"
    assert found["unpriced"] == []
    assert sum(share["latency_ms"] for share in found["breakdown"]) == pytest.approx(
        found["latency_ms"]
    )
    assert (found["device"], found["runtime"], found["precision"]) == (
        *("galaxy-s24", "tflite", "fp32"),
    )
    assert found["basis"]
    assert found["cliffs"] == []


def test_people_get_one_line_first_then_where_the_time_goes(tmp_path: Path) -> None:
    result = run("predict", NAME, "--device", "iphone-12", home=tmp_path)
    first, second, *rest = result.stdout.splitlines()
    assert first.startswith(f"{NAME} on iPhone 12: ")
    assert "ms, 90% interval" in first
    assert "predicted (coreml on ane, float)" in first
    assert second.startswith("Rests on: ")
    assert "pointwise" in "\n".join(rest)
    assert "blocks." in "\n".join(rest), "the largest kernels name their modules"


def test_a_bundle_is_predicted_as_the_format_that_the_device_is_given(folder: Path) -> None:
    by_default = document(folder, "--device", "raspberry-pi-5", home=folder)
    assert (by_default["runtime"], by_default["model"]) == ("tflite", "tiny")
    assert [op["op"] for op in by_default["unpriced"]] == ["aten.fft"]
    asked = document(folder, "--device", "raspberry-pi-5", "--runtime", "onnx", home=folder)
    assert asked["runtime"] == "onnxruntime"
    assert asked["unpriced"] == []


def test_a_bundle_needs_no_torch(folder: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None; sys.modules['timm'] = None\n"
        f"sys.argv = ['phoneward', 'predict', {str(folder)!r}, '--device', 'pixel-8', '--json']\n"
        "from phoneward.__main__ import main\n"
        "main()\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["latency_ms"] > 0


def test_a_report_is_written_with_its_provenance(folder: Path) -> None:
    out = folder / "predicted.json"
    result = run("predict", folder, "--device", "pixel-8", "-o", out, home=folder)
    assert result.returncode == 0, result.stderr
    report = read_report(out)
    (stage,) = report.stages
    assert (report.provenance.value, report.place) == ("predicted", "predicted")
    assert (stage.format, str(stage.precision)) == ("tflite", "fp32")
    assert len(stage.kernels) == 60
    assert isinstance(stage.result, Predicted)
    assert report.machine.device == "pixel-8"


def test_a_cliff_is_told(folder: Path) -> None:
    arguments = ("--device", "raspberry-pi-4", "--precision", "int8")
    result = run("predict", folder, *arguments, home=folder)
    assert "cliff: these cores have no dot product" in result.stdout
    assert "not in it: aten.fft x1" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((NAME, "--device", "pixel-99"), "unknown device 'pixel-99'; known: dimensity-9300, "),
        (("timm:no_such_net", "--device", "pixel-8"), "unknown"),
        (("no_such_model", "--device", "pixel-8"), "unknown model 'no_such_model'"),
        ((NAME, "--device", "pixel-8", "--runtime", "caffe"), "no runtime 'caffe': one of coreml"),
        ((NAME, "--device", "pixel-8", "--precision", "int3"), "no precision 'int3': one of"),
        ((NAME, "--device", "pixel-8", "--unit", "vpu"), "no unit 'vpu': one of ane"),
        ((NAME, "--device", "pixel-8", "--unit", "cpu 9t huge"), "no unit 'cpu 9t huge': only a"),
        ((NAME, "--device", "pixel-8", "--unit", "npu 4t big"), "no unit 'npu 4t big': only a cpu"),
        (("./nowhere", "--device", "pixel-8"), "nowhere"),
        ((NAME, "--device", "./mine.json"), "mine.json"),
        ((NAME,), "--device"),
    ],
)
def test_bad_input_is_one_clear_line(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    result = run("predict", *arguments, home=tmp_path)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_with_json_an_error_is_json_too(tmp_path: Path) -> None:
    result = run("predict", NAME, "--device", "pixel-99", "--json", home=tmp_path)
    assert result.returncode == 2
    assert "pixel-99" in json.loads(result.stdout)["error"]


def test_a_bundle_without_kernels_says_what_to_do(folder: Path) -> None:
    with pytest.raises(BundleError, match="run `phoneward export tiny` again"):
        graphs_of(str(folder), "coreml")


def test_a_bundle_without_the_runtime_lists_what_it_has(folder: Path) -> None:
    with pytest.raises(PredictionError, match="nothing for executorch, only: onnx, tflite, coreml"):
        graphs_of(str(folder), "executorch")


def test_too_much_that_nobody_can_price_gets_no_number(folder: Path) -> None:
    write_manifest(folder, [artifact(folder, "onnx", graph(**{"aten.fft": 9}))])
    result = run("predict", folder, "--device", "pixel-8", "--runtime", "onnx", home=folder)
    assert result.returncode == 2
    assert "aten.fft x9" in result.stderr
    assert result.stdout == ""

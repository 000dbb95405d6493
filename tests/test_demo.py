"""`demo` replaces nothing it did not make, and its JSON holds numbers and nulls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from phoneward.apps.cli.demo import demonstrate
from phoneward.export.request import ExportRequest, make_request
from phoneward.names import Precision


def small(*formats: str) -> ExportRequest:
    return make_request("mobilenetv3_small_100", "random", (), formats, [Precision.FP32])


PRECIOUS = '{"schema_version": 1, "artifacts": ["precious"]}'


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        (("-o", "mine"), "bundle.json", "give --force to replace it"),
        (("-o", "mine"), "photo.jpg", "mine is not a bundle"),
        (("-o", "mine", "--force"), "photo.jpg", "mine is not a bundle"),
        ((), "photo.jpg", "demo-output is not a bundle"),
    ],
)
def test_an_existing_folder_stays(
    tmp_path: Path, arguments: tuple[str, ...], content: str, message: str
) -> None:
    folder = tmp_path / ("mine" if arguments else "demo-output")
    folder.mkdir()
    (folder / content).write_text(PRECIOUS)
    command = [sys.executable, "-m", "phoneward", "demo", *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert (folder / content).read_text() == PRECIOUS


def test_answers_are_numbers_or_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    request = small("onnx", "coreml")
    assert demonstrate(request, out, force=False, json_output=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["error"] is None
    answers = {Path(answer["path"]).suffix: answer for answer in report["answers"]}
    assert all(Path(answer["path"]).exists() for answer in answers.values())
    assert answers[".onnx"]["engine"] == "onnxruntime"
    assert isinstance(answers[".onnx"]["score"], float)
    assert 0 < answers[".onnx"]["score"] <= 1
    assert answers[".mlpackage"]["engine"] == ("coreml" if sys.platform == "darwin" else "mil")
    assert answers[".mlpackage"]["label"] == answers[".onnx"]["label"]

    assert demonstrate(request, out, force=True, json_output=False) == 0
    shown = capsys.readouterr().out
    assert f"{answers['.onnx']['score']:.1%}" in shown
    assert "not executed here" not in shown


@pytest.mark.parametrize("json_output", [False, True])
def test_a_failed_gate_shows_every_verdict(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    json_output: bool,
) -> None:
    import phoneward.export.rewrites as rewrites

    def spoil(model, names):  # type: ignore[no-untyped-def]
        model.body.classifier.bias.data[3] += 1
        return {}

    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rewrites, "apply_all", spoil)
    out = tmp_path / "out"
    assert demonstrate(small("onnx"), out, force=False, json_output=json_output) == 1
    assert not out.exists()
    shown = capsys.readouterr()
    if json_output:
        report = json.loads(shown.out)
        (artifact,) = report["artifacts"]
        assert artifact["parity"]["status"] == "failed"
        assert "classify onnx-fp32" in report["error"]
    else:
        assert "failed (onnxruntime)" in shown.out
        assert "onnx-fp32: logits: relative error" in shown.out
        assert shown.err.splitlines()[-1].startswith("error: parity with PyTorch failed")

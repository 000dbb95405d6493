"""`phoneward lint` and what `export` says of it, as a user has them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phoneward.apps.cli import lint
from tests.command_line import run

NAME = "mobilenetv3_small_100"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle in the folder `net` and what its export printed."""
    folder = tmp_path_factory.mktemp("lint")
    kinds = ("--format", "coreml", "--precision", "fp32", "--precision", "fp16")
    result = run("export", NAME, *kinds, "--weights", "random", "-o", "net", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "net", result.stdout


def test_an_export_counts_the_warnings_of_each_core_ml_artifact(
    exported: tuple[Path, str],
) -> None:
    lines = [line for line in exported[1].splitlines() if "Neural Engine" in line]
    assert lines == [
        "classify coreml-fp32: 1 warning for the Neural Engine; see them: phoneward lint net",
        "classify coreml-fp16: no warnings for the Neural Engine",
    ]


def test_the_same_export_again_knows_them_without_looking(exported: tuple[Path, str]) -> None:
    script = (
        "import sys; sys.argv = ['phoneward', *sys.argv[1:]]\n"
        "from phoneward.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "sys.exit(code or 'coremltools' in sys.modules)"
    )
    kinds = ("--format", "coreml", "--precision", "fp32", "--weights", "random")
    result = subprocess.run(
        [sys.executable, "-c", script, "export", NAME, *kinds, "-o", "again"],
        cwd=exported[0].parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    line = "classify coreml-fp32: 1 warning for the Neural Engine; see them: phoneward lint again"
    assert line in result.stdout.splitlines()


def test_a_bundle_gets_one_line_a_warning_with_the_modules(
    exported: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert lint.command(exported[0]) == 0
    fp32, warning, fp16 = capsys.readouterr().out.splitlines()
    assert (fp32, fp16) == ("classify coreml-fp32: 1 warning", "classify coreml-fp16: no warnings")
    assert warning.startswith("  float32-compute (leaves): the Neural Engine computes in half")
    assert "; in normalize, conv_stem, " in warning
    assert warning.endswith(" more")


def test_a_package_alone_has_every_figure_in_json(
    exported: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    package = exported[0] / "artifacts" / "classify-fp32.mlpackage"
    assert lint.command(package, json_output=True) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["package"] == str(package)
    (found,) = told["lints"]
    assert set(found) == {"code", "effect", "message", "ops", "modules", "evidence"}
    assert "coremltools" in found["evidence"][0]
    assert "classifier" in found["modules"]


@pytest.mark.parametrize("json_output", [(), ("--json",)])
def test_bad_input_is_one_line_and_exit_code_2(
    exported: tuple[Path, str], tmp_path: Path, json_output: tuple[str, ...]
) -> None:
    (tmp_path / "empty.mlpackage").mkdir()
    only_onnx = tmp_path / "onnx"
    shutil.copytree(exported[0], only_onnx)
    manifest = json.loads((only_onnx / "bundle.json").read_text(encoding="utf-8"))
    for artifact in manifest["artifacts"]:
        artifact["format"] = "onnx"
    (only_onnx / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    for target, message in (
        ("nowhere", "nowhere is not a bundle: no bundle.json in it"),
        ("empty.mlpackage", "empty.mlpackage: not a Core ML package: it has no Manifest.json"),
        ("onnx", "onnx has no Core ML artifacts to lint"),
    ):
        result = run("lint", target, *json_output, cwd=tmp_path)
        assert result.returncode == 2
        assert result.stderr == f"error: {message}\n"
        assert result.stdout == ("" if not json_output else json.dumps({"error": message}) + "\n")

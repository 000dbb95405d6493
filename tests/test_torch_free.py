"""A board without torch: a second environment holds the wheel, one old engine and nothing else.

`PHONEWARD_TEST_ENV` names such an environment, at the known-good versions, to use as it is;
without it one is made, which needs a package registry.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from phoneward.bundle import Bundle
from phoneward.export.pipeline import Options, export_bundle
from phoneward.export.request import make_request
from phoneward.names import Precision
from phoneward.runtime.classifier import Classifier
from tests.test_layers import module_of, needs_torch

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "export" / "photos" / "cat.jpg"
# the last release of tflite-runtime, which knows no numpy 2
ENGINE = ("tflite-runtime==2.14.0", "numpy==1.26.4")
PRECISIONS = (Precision.FP32, Precision.FP16)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] not in {(3, 10), (3, 11)},
    reason="tflite-runtime 2.14 exists for Linux and Python up to 3.11",
)


def run(board: Path, *command: str, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment as its user would: nothing of ours on the path."""
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    result = subprocess.run(
        [str(board / "bin" / command[0]), *command[1:]],
        cwd=cwd,
        env={**environment, "PHONEWARD_CACHE": str(cwd / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == expect, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the environment, with `phoneward` from a wheel of this checkout."""
    if ready := os.environ.get("PHONEWARD_TEST_ENV"):
        return Path(ready)
    work = tmp_path_factory.mktemp("board")
    fetched = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", "wheels", *ENGINE],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode:
        last = (fetched.stderr.strip().splitlines() or ["pip download failed"])[-1]
        pytest.skip(f"the old engine cannot be had: {last}")
    venv.create(work / "env", with_pip=True)
    # a copy, so that building leaves nothing in the checkout
    source = work / "phoneward"
    ignored = shutil.ignore_patterns(".git", ".*_cache", "__pycache__", ".venv", "build", "dist")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    known_good = (ROOT / "constraints.txt").read_text().splitlines()
    without_numpy = "\n".join(line for line in known_good if not line.startswith("numpy=="))
    (work / "constraints.txt").write_text(without_numpy + "\n")
    options = ["-q", "--find-links", "wheels", "-c", "constraints.txt"]
    run(work / "env", "pip", "install", *options, str(source), *ENGINE, cwd=work)
    return work / "env"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the environment with torch made, for the board to use."""
    folder = tmp_path_factory.mktemp("made") / "bundle"
    request = make_request("mobilenetv3_small_100", "random", (), ["tflite"], PRECISIONS)
    export_bundle(request, folder, Options(use_cache=False))
    return folder


def test_torch_is_really_absent(board: Path, tmp_path: Path) -> None:
    script = (
        "import importlib.util as u, phoneward, sys\n"
        "heavy = ['torch', 'timm', 'onnx', 'coremltools', 'executorch', 'ai_edge_litert']\n"
        "print([name for name in heavy if u.find_spec(name)], phoneward.__file__)"
    )
    found = run(board, "python", "-c", script, cwd=tmp_path).stdout.strip()
    assert found.startswith("[] ")
    assert Path(found[3:]).is_relative_to(board)  # the wheel, not the checkout


def test_runtime_and_profiles_import_whole(board: Path, tmp_path: Path) -> None:
    script = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    files = [p for room in ("runtime", "profiles") for p in (ROOT / room).rglob("*.py")]
    names = sorted(name for name in map(module_of, files) if not needs_torch(name))
    assert len(names) > len(files) / 2
    run(board, "python", "-W", "error", "-c", script, *names, cwd=tmp_path)


def test_the_bundle_verifies(board: Path, made: Path, tmp_path: Path) -> None:
    answer = json.loads(run(board, "phoneward", "verify", str(made), "--json", cwd=tmp_path).stdout)
    rows = answer["artifacts"]
    assert [row["precision"] for row in rows] == [str(p) for p in PRECISIONS]
    for row, artifact in zip(rows, Bundle.open(made).manifest.artifacts, strict=True):
        parity = row["parity"]
        assert (parity["status"], parity["engine"]) == ("ok", "litert")
        assert (parity["top1_agreement"], parity["images"]) == (1.0, 5)
        assert 0 < parity["outputs"][0]["relative_error"] <= 2e-2
        assert row["sha256"] == artifact.sha256


def test_verify_speaks_to_people(board: Path, made: Path, tmp_path: Path) -> None:
    result = run(board, "phoneward", "verify", str(made), cwd=tmp_path)
    count = len(PRECISIONS)
    assert f"{count} of {count} artifacts executed here: all of these agree" in result.stdout


def test_a_changed_artifact_is_noticed(board: Path, made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "changed"
    shutil.copytree(made, copy)
    file = copy / Bundle.open(copy).manifest.artifacts[0].path
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    result = run(board, "phoneward", "verify", str(copy), cwd=tmp_path, expect=2)
    assert "changed since it was exported" in result.stderr


def by_torchs_side(made: Path, precision: Precision) -> list[tuple[int, str, float]]:
    with Classifier.open(Bundle.open(made), engine="litert", precision=precision) as classifier:
        return [(each.index, each.label, each.score) for each in classifier.classify(PHOTO)]


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_it_sees_what_this_environment_sees(
    board: Path, made: Path, precision: Precision, tmp_path: Path
) -> None:
    command = ["phoneward", "run", str(made), str(PHOTO), "--precision", str(precision), "--json"]
    (answer,) = json.loads(run(board, *command, cwd=tmp_path).stdout)
    assert (answer["image"], answer["engine"]) == (str(PHOTO), "litert")
    top: list[dict[str, Any]] = answer["top5"]
    expected = by_torchs_side(made, precision)
    assert [(each["index"], each["label"]) for each in top] == [row[:2] for row in expected]
    assert [each["score"] for each in top] == pytest.approx([row[2] for row in expected], rel=1e-3)


def test_an_engine_without_an_artifact_is_told_what_there_is(
    board: Path, made: Path, tmp_path: Path
) -> None:
    command = ["phoneward", "run", str(made), str(PHOTO), "--engine", "onnxruntime"]
    result = run(board, *command, cwd=tmp_path, expect=2)
    assert result.stderr.startswith("error: ")
    assert "it has: tflite-fp32, tflite-fp16" in result.stderr


def test_exporting_says_what_to_install(board: Path, tmp_path: Path) -> None:
    command = ["phoneward", "export", "mobilenetv3_small_100", "--weights", "random"]
    command += ["--format", "tflite", "--output", "out"]
    result = run(board, *command, cwd=tmp_path, expect=2)
    assert "pip install 'phoneward[" in result.stderr
    assert not (tmp_path / "out").exists()


def test_devices_and_doctor_work(board: Path, tmp_path: Path) -> None:
    from phoneward.profiles.device import device_names

    devices = run(board, "phoneward", "devices", cwd=tmp_path).stdout
    assert all(name in devices for name in device_names())
    answer = json.loads(
        run(board, "phoneward", "doctor", "--for", "runtime", "--json", cwd=tmp_path).stdout
    )
    assert (answer["ok"], answer["problems"]) == (True, [])
    (engine,) = [row for row in answer["pieces"] if row["name"] == "tflite-runtime"]
    assert (engine["state"], engine["installed"]) == ("ok", "2.14.0")

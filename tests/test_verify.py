"""`verify` says what was checked and executed, and no more than that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from phoneward.apps.cli import verify
from phoneward.bundle import MANIFEST, Bundle, sha256_of


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(bundle.path, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


def keep(bundle: Bundle, *formats: str) -> None:
    """Leave only the artifacts of these formats in the manifest."""
    artifacts = tuple(a for a in bundle.manifest.artifacts if a.format in formats)
    manifest = bundle.manifest.model_copy(update={"artifacts": artifacts})
    (bundle.path / MANIFEST).write_text(manifest.model_dump_json())


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_what_was_not_executed_is_not_called_proved(
    copy: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(copy, "none")
    assert verify.command(copy.path, threads=1) == 0
    assert last_line(capsys) == "0 of 1 artifacts executed here: nothing was proved."


def test_the_executed_artifacts_and_the_checked_files_are_counted(
    copy: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(copy, "none", "onnx")
    assert verify.command(copy.path, threads=1) == 0
    files, conclusion = capsys.readouterr().out.splitlines()[-2:]
    assert files.startswith("4 files ")  # two artifacts, the labels, the reference
    assert conclusion == "1 of 2 artifacts executed here: all of these agree with PyTorch."
    assert verify.command(copy.path, threads=1, json_output=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["executed"], len(report["artifacts"])) == (1, 2)


def test_a_disagreement_is_an_error(copy: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    keep(copy, "none", "onnx")
    reference = copy.path / copy.manifest.reference
    with np.load(reference) as archive:
        arrays = dict(archive)
    arrays["classify/output/logits"] += np.arange(10, dtype=np.float32)
    np.savez(reference, **arrays)
    record = json.loads((copy.path / MANIFEST).read_text())
    record["reference_sha256"] = sha256_of(reference)
    (copy.path / MANIFEST).write_text(json.dumps(record))
    assert verify.command(copy.path, threads=1) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "error: 1 of 2 artifacts executed here: 1 disagree with PyTorch"

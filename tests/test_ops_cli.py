"""`phoneward doctor --ops`: what a Core ML package uses, and what is missing here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from phoneward.apps.cli import doctor
from phoneward.errors import EngineError, MissingExtra
from phoneward.runtime.engines import open_session

if TYPE_CHECKING:
    from tests.conftest import Sample


@pytest.fixture
def package(samples: dict[str, Sample], tmp_path: Path) -> Path:
    return Path(shutil.copytree(samples["coreml"].path, tmp_path / "network.mlpackage"))


def rename_op(package: Path, old: str, new: str) -> None:
    """Give every op of a type another one, as a later Core ML might have."""
    from coremltools import proto

    file = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = proto.Model_pb2.Model.FromString(file.read_bytes())
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            for op in block.operations:
                op.type = new if op.type == old else op.type
    file.write_bytes(spec.SerializeToString())


def test_the_ops_are_counted(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.command(None, package, json_output=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["missing"] == []
    assert told["functions"] == ["main"]
    assert told["ops"]["conv"] == 1
    assert told["ops"]["linear"] == 1
    assert doctor.command(None, package) == 0
    assert "has every op of this package" in capsys.readouterr().out


def test_a_missing_op_is_named_and_never_skipped(
    package: Path, samples: dict[str, Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    rename_op(package, "relu", "spline_of_the_future")
    assert doctor.command(None, package, json_output=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["missing"] == ["spline_of_the_future"]
    assert doctor.command(None, package) == 1
    assert "error: no such op here: spline_of_the_future" in capsys.readouterr().err
    sample = samples["coreml"]
    with pytest.raises(EngineError, match="spline_of_the_future"):
        open_session("mil", package, sample.inputs, sample.outputs)


def test_what_is_no_package_and_an_absent_extra_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text("{}")
    with pytest.raises(EngineError, match=r"is a bundle: name a package"):
        doctor.command(None, tmp_path / "bundle")
    with pytest.raises(EngineError, match="no such folder"):
        doctor.command(None, tmp_path / "absent.mlpackage")
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(MissingExtra, match=r"phoneward\[mil\]"):
        doctor.command(None, tmp_path)

"""`verify --blame` names ops, and says plainly where PyTorch's side cannot be rebuilt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from phoneward.apps.cli import verify
from phoneward.apps.cli.app import app
from phoneward.bundle import MANIFEST, Bundle, sha256_of
from phoneward.errors import BundleError, InvalidSpec, WeightsError
from phoneward.export.blame.rebuild import Rebuilt
from phoneward.export.pipeline import export_bundle
from phoneward.export.request import keep_in_float, make_request
from phoneward.names import Precision
from tests.blame_models import tamper

MODEL = "mobilevit_xxs"


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A hybrid with random weights as Core ML in half precision, one op of it in single."""
    request = make_request(MODEL, "random", (), ["coreml"], [Precision.FP16])
    request = keep_in_float(request, ["softmax_4"])
    return export_bundle(request, tmp_path_factory.mktemp("hybrid") / "bundle")


@pytest.fixture
def copied(hybrid: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(hybrid.path, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


def changed(bundle: Bundle, **values: Any) -> Bundle:
    """Write other values into the manifest; what stays a value of JSON."""
    record = json.loads((bundle.path / MANIFEST).read_text())
    (bundle.path / MANIFEST).write_text(json.dumps({**record, **values}))
    return Bundle.open(bundle.path)


def test_a_sound_bundle_agrees_op_by_op(hybrid: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.command(hybrid.path, threads=1, blame=True) == 0
    told = capsys.readouterr().out
    assert "no op loses precision" in told
    assert "ops are paired with PyTorch's, and all of them agree." in told
    assert "classify coreml-fp16 computes 1 of 251 ops in fp32 (0.4%)." in told
    (artifact,) = hybrid.manifest.artifacts
    assert artifact.keep_fp32 is not None
    (kept,) = artifact.keep_fp32.kept
    assert (kept.op, kept.name, kept.module) == (
        "softmax_4",
        "softmax_4",
        "stages.3.1.layers.2.attention",
    )


def test_sums_in_half_precision_are_worse(
    hybrid: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    worst = {}
    for half_sums in (False, True):
        verify.command(hybrid.path, threads=1, blame=True, half_sums=half_sums, json_output=True)
        (told,) = json.loads(capsys.readouterr().out)["blame"]
        # one result is rounded once, or at every term
        worst[half_sums] = max(o["own_error"] for o in told["ops"] if o["type"] == "linear")
    assert worst[True] > 2 * worst[False] > 0
    with pytest.raises(InvalidSpec, match="--half-sums is for --blame"):
        verify.command(hybrid.path, half_sums=True)


def test_a_fault_is_named_in_the_report(copied: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    (artifact,) = copied.manifest.artifacts
    tamper(copied.file(artifact), "softmax_6", "axis", -2)
    record = json.loads(artifact.model_dump_json())
    changed(copied, artifacts=[{**record, "sha256": sha256_of(copied.file(artifact))}])
    verify.command(copied.path, threads=1, blame=True, json_output=True)
    (found,) = json.loads(capsys.readouterr().out)["blame"]
    assert found["unavailable"] is None
    assert [one["node"] for one in found["pytorch"]["blames"]] == ["softmax_6"]
    assert found["pytorch"]["blames"][0]["target"] == "aten.softmax.int"
    assert len(found["ops"]) > 250


def test_weights_that_do_not_matter_or_exist_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="is for --blame"):
        verify.command(bundle.path, weights=tmp_path / "mine.pt")
    with pytest.raises(InvalidSpec, match="no such weights file"):
        verify.command(bundle.path, blame=True, weights=tmp_path / "mine.pt")


def test_the_extra_survives_the_markup_of_the_help() -> None:
    told = CliRunner().invoke(app, ["verify", "--help"]).stdout
    assert "phoneward[export]" in told


def test_an_unknown_model_is_walked_alone(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify.command(bundle.path, threads=1, blame=True) == 0
    told = capsys.readouterr().out
    assert "no op loses precision" in told
    assert "PyTorch's side could not be rebuilt: unknown model 'tiny'" in told


def test_what_has_changed_is_not_compared(copied: Bundle) -> None:
    (artifact,) = copied.manifest.artifacts
    weights = copied.manifest.weights.model_dump()
    cases = (
        ({"weights": {**weights, "seed": 1}}, WeightsError, "random weights of seed 1"),
        (
            {"weights": {"kind": "file", "source": "mine.pt", "sha256": "0" * 64}},
            WeightsError,
            "mine.pt; give it as --weights",
        ),
        ({"constants": {"memory_slots": 3}}, InvalidSpec, "remembers nothing"),
        ({"stages": []}, BundleError, "other stages"),
    )
    original = (copied.path / MANIFEST).read_text()
    for values, error, message in cases:
        with pytest.raises(error, match=message):
            Rebuilt(changed(copied, **values)).program(artifact)
        (copied.path / MANIFEST).write_text(original)
    with pytest.raises(WeightsError, match="weights are random"):
        Rebuilt(copied, copied.path / "mine.pt").program(artifact)
    other = artifact.model_copy(update={"rewrites": ("mean_pool",)})
    with pytest.raises(BundleError, match="and were mean_pool when"):
        Rebuilt(copied).program(other)


def test_a_tracker_with_a_shorter_bank_is_built_again(tam_bundle: Bundle) -> None:
    """Of a model that pools its memory anyway, which cannot be asked to."""
    artifact = next(a for a in tam_bundle.manifest.artifacts if a.stage == "propagate")
    program = Rebuilt(tam_bundle).program(artifact)
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    assert (1, 64, 2 * 256) in [tuple(node.meta["val"].shape) for node in inputs]


def test_a_name_that_nothing_bears_is_refused(tmp_path: Path) -> None:
    request = make_request(MODEL, "random", (), ["coreml"], [Precision.FP16])
    with pytest.raises(InvalidSpec, match="is called nonsense"):
        export_bundle(keep_in_float(request, ["nonsense"]), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()

"""CBNet and its company through the same gates as every model, and then used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from phoneward.bundle import Bundle
from phoneward.errors import InvalidSpec
from phoneward.export.models.cbnet.family import network
from phoneward.export.models.cbnet.settings import Settings
from phoneward.export.models.random_init import randomise
from phoneward.export.pipeline import export_bundle
from phoneward.export.request import make_request
from phoneward.export.train.cbnet.easy_hard import judge
from phoneward.export.train.cbnet.files import Origin, save
from phoneward.names import ParityStatus, Precision
from phoneward.runtime.classifier import Classifier
from tests.command_line import run as phoneward
from tests.small_digits import CLASSES, pictures

FORMATS = ("tflite", "executorch", "onnx", "coreml")
SETTINGS = Settings(
    data="bars", labels=tuple(f"bar {n}" for n in range(CLASSES)), autoencoder=(64, 16)
)


def weights(name: str, folder: Path) -> tuple[Path, torch.nn.Module]:
    """Random weights under which the exit is sure of about half of the pictures."""
    model = network(name, SETTINGS).eval()
    randomise(model, (1, 1, 28, 28), 3)
    images = torch.from_numpy(pictures(40, 5).images)
    entropy = 0.0
    if name in ("branchynet", "exit_hybrid"):
        entropy = float(np.median(judge(model, images[:, None].float() / 255).entropies))
    settings = SETTINGS.model_copy(update={"exit_entropy": entropy})
    file = folder / f"{name}.safetensors"
    save(model, file, settings, images[:8].clone(), Origin())
    return file, model


@pytest.mark.parametrize("format_name", FORMATS)
def test_cbnet_passes_the_gate_in_every_format(format_name: str, tmp_path: Path) -> None:
    file, model = weights("cbnet", tmp_path)
    bundle = export_bundle(make_request("cbnet", str(file), (), [format_name]), tmp_path / "out")
    (artifact,) = bundle.manifest.artifacts
    assert artifact.parity.status is ParityStatus.OK
    assert artifact.parity.images == 8, "the gate sees the images that came with the weights"
    assert artifact.parity.top1_agreement == 1
    assert artifact.rewrites == ("fold_image_scale",)
    images = pictures(6, 9).images
    with Classifier.open(bundle) as classifier:
        answers = classifier.answers(images)
        labels = classifier.classify_arrays(images, top=1)
    with torch.no_grad():
        logits, converted = model(torch.from_numpy(images)[:, None].float() / 255)
    np.testing.assert_allclose(answers.logits, logits.numpy(), atol=1e-4 * np.ptp(logits.numpy()))
    pixels = np.stack([answers.others["converted"][i].reshape(28, 28) for i in range(6)])
    np.testing.assert_allclose(pixels, 255 * converted[:, 0].numpy(), atol=0.03)
    assert [one[0].label for one in labels] == [f"bar {k}" for k in logits.argmax(1).tolist()]


@pytest.mark.parametrize("format_name", ["onnx", "tflite"])
def test_branchynet_in_batches_leaves_where_pytorch_says(format_name: str, tmp_path: Path) -> None:
    file, model = weights("branchynet", tmp_path)
    request = make_request("branchynet", str(file), (), [format_name], batch=4)
    bundle = export_bundle(request, tmp_path / "out")
    assert {a.parity.status for a in bundle.manifest.artifacts} == {ParityStatus.OK}
    images = pictures(21, 11).images
    with Classifier.open(bundle) as classifier:
        answers = classifier.answers(images)
        threshold = classifier.exit_entropy
    assert threshold is not None
    judged = judge(model, torch.from_numpy(images)[:, None].float() / 255)
    clear = np.abs(judged.entropies - threshold) > 1e-4
    assert clear.sum() > 15
    np.testing.assert_array_equal(answers.exited[clear], (judged.entropies < threshold)[clear])
    assert 0 < answers.exited.sum() < len(images)
    np.testing.assert_array_equal(answers.logits.argmax(1)[clear], judged.answers(threshold)[clear])


@pytest.mark.parametrize(
    "format_name",
    ["tflite", *(pytest.param(f, marks=pytest.mark.matrix) for f in FORMATS if f != "tflite")],
)
def test_a_hybrid_behind_an_exit(format_name: str, tmp_path: Path) -> None:
    file, _ = weights("exit_hybrid", tmp_path)
    request = make_request("exit_hybrid", str(file), (), [format_name])
    bundle = export_bundle(request, tmp_path / "out")
    assert [a.stage for a in bundle.manifest.artifacts] == ["exit", "finish"]
    assert {a.parity.status for a in bundle.manifest.artifacts} == {ParityStatus.OK}
    finish = bundle.manifest.artifacts[1]
    assert "fuse_batch_norm" in finish.rewrites
    with Classifier.open(bundle) as classifier:
        assert 0 < classifier.answers(pictures(12, 1).images).exited.sum() < 12


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_other_precisions_pass_too(precision: Precision, tmp_path: Path) -> None:
    file, _ = weights("cbnet", tmp_path)
    request = make_request("cbnet", str(file), (), ["tflite"], [precision])
    (artifact,) = export_bundle(request, tmp_path / "out").manifest.artifacts
    assert artifact.parity.status is ParityStatus.OK
    assert ("fold_image_scale" in artifact.rewrites) == (precision is Precision.INT8)


def test_core_ml_makes_its_own_batches(tmp_path: Path) -> None:
    file, _ = weights("lenet", tmp_path)
    request = make_request("lenet", str(file), (), ["coreml"], batch=2)
    with pytest.raises(InvalidSpec, match="Core ML makes its own batches"):
        export_bundle(request, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line_from_weights_to_a_folder_of_digits(tmp_path: Path) -> None:
    file, model = weights("branchynet", tmp_path)
    done = phoneward(
        "export", "branchynet", "--weights", str(file), "--format", "onnx", "-o", "net",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (tmp_path / "digits").mkdir()
    images = pictures(9, 13).images
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "digits" / f"{index}.png")
    done = phoneward("run", "net", "digits", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    manifest = Bundle.open(tmp_path / "net").manifest
    threshold = float(manifest.constants["exit_entropy"])
    judged = judge(model, torch.from_numpy(images)[:, None].float() / 255)
    for row, entropy in zip(rows, judged.entropies, strict=True):
        if abs(entropy - threshold) > 1e-4:
            assert row["exit_taken"] == (entropy < threshold)
            assert row["stage"] == ("exit" if row["exit_taken"] else "finish")
    plain = phoneward("run", "net", "digits", cwd=tmp_path)
    left = sum(row["exit_taken"] for row in rows)
    assert f"exit taken by {left} of 9 images" in plain.stdout


def test_weights_that_nobody_published_are_said_to_be_so(tmp_path: Path) -> None:
    done = phoneward("export", "cbnet", "--format", "onnx", "-o", "net", cwd=tmp_path)
    assert done.returncode == 2
    assert "cbnet has no published weights" in done.stderr
    assert "phoneward train cbnet" in done.stderr

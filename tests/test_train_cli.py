"""`phoneward train cbnet`: a training, its resumption, and every bad input in one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command_line import run as phoneward
from tests.small_digits import pictures, write_idx


def _train(folder: Path, data: Path, *more: str) -> tuple[int, str, str]:
    done = phoneward(
        "train", "cbnet", "--data", data, "-o", folder / "out", "--epochs", 1, *more,
        cwd=folder,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_training_from_images_by_class_to_files_that_export_takes(tmp_path: Path) -> None:
    split = pictures(60, 0)
    for index, (image, one) in enumerate(zip(split.images, split.classes, strict=True)):
        place = tmp_path / "bars" / f"kind {one}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index}.png")
    code, out, err = _train(tmp_path, tmp_path / "bars", "--autoencoder", "32,8", "--json")
    assert code == 0, err
    record = json.loads(out)
    assert record["settings"]["labels"] == [f"kind {n}" for n in range(4)]
    assert record["settings"]["autoencoder"] == [32, 8]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {f"{n}.safetensors" for n in ("lenet", "branchynet", "cbnet_light", "cbnet")} < files
    assert {"training.json", "conversions.png"} < files
    again, text, err = _train(tmp_path, tmp_path / "bars", "--autoencoder", "32,8")
    assert again == 0, err
    assert "Next: phoneward export cbnet --weights" in text
    done = phoneward(
        "export", "cbnet", "--weights", tmp_path / "out" / "cbnet.safetensors", "--format",
        "onnx", "--dry-run", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(done.stdout)["weights"]["source"] == "cbnet.safetensors"


def test_damaged_idx_files(tmp_path: Path) -> None:
    write_idx(tmp_path / "data", pictures(12, 0), pictures(8, 1))
    file = tmp_path / "data" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:500])
    code, out, err = _train(tmp_path, tmp_path / "data")
    assert (code, out) == (2, "")
    assert err == (f"error: {file}: truncated: 484 bytes of values where 9408 are stated\n")
    assert not (tmp_path / "out").exists()


def test_one_class(tmp_path: Path) -> None:
    (tmp_path / "data" / "cats").mkdir(parents=True)
    for index in range(3):
        Image.fromarray(np.zeros((28, 28), np.uint8)).save(
            tmp_path / "data" / "cats" / f"{index}.png"
        )
    code, _, err = _train(tmp_path, tmp_path / "data")
    assert code == 2
    assert err.startswith(f"error: {tmp_path / 'data'}: one class ('cats')")
    assert err.count("\n") == 1


@pytest.mark.parametrize("widths", ["0", "64,", "99999"])
def test_widths_that_are_none(tmp_path: Path, widths: str) -> None:
    write_idx(tmp_path / "data", pictures(12, 0), pictures(8, 1))
    code, _, err = _train(tmp_path, tmp_path / "data", "--autoencoder", widths)
    assert code == 2
    assert "Traceback" not in err


def test_no_such_data(tmp_path: Path) -> None:
    code, _, err = _train(tmp_path, tmp_path / "nothing")
    assert code == 2
    assert "neither a folder nor one of mnist, fashion-mnist, kmnist" in err


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    write_idx(tmp_path / "data", pictures(40, 0), pictures(8, 1))
    (tmp_path / "out" / "checkpoints").mkdir(parents=True)
    (tmp_path / "out" / "checkpoints" / "lenet.pt").write_bytes(b"cut")
    code, _, err = _train(tmp_path, tmp_path / "data")
    assert code == 2
    assert "lenet.pt: damaged checkpoint; remove it to start anew" in err

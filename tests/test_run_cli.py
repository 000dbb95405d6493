"""`phoneward run` on folders, in batches, and with early exits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phoneward.bundle import Bundle
from phoneward.runtime.cascade import entropy
from phoneward.runtime.images import images_in
from tests.cascade_bundle import CLASSES, Made, images, write
from tests.command_line import run

PIXELS = images(23)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("branchy")
    return write(folder, "branchy", ["onnx"], (4, 4), {"exit_entropy": 0.5})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_text("not an image")
    (folder / "more.png").mkdir()
    return folder


def leaving(made: Made, count: int = len(PIXELS), threshold: float = 0.5) -> list[bool]:
    known = made.outputs(PIXELS[:count])["exit/logits"]
    return [bool(left) for left in entropy(known) < threshold]


def test_a_folder_is_all_images_in_it(made: Made, pictures: Path) -> None:
    result = run("run", made.bundle.path, pictures, "--json", cwd=pictures)
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [row["image"] for row in rows] == [str(pictures / f"{n:02}.png") for n in range(23)]
    assert [row["exit_taken"] for row in rows] == leaving(made)
    assert {(row["stage"], row["exit_taken"]) for row in rows} == {
        ("exit", True),
        ("finish", False),
    }
    known = made.outputs(PIXELS)
    logits = np.where(
        np.array(leaving(made))[:, None], known["exit/logits"], known["finish/logits"]
    )
    assert [row["top5"][0]["index"] for row in rows] == logits.argmax(axis=1).tolist()
    assert all(len(row["top5"]) == len(CLASSES) for row in rows)


def test_many_images_have_a_line_each_and_a_count_of_exits(made: Made, pictures: Path) -> None:
    result = run("run", made.bundle.path, pictures, cwd=pictures)
    taken = sum(leaving(made))
    assert 0 < taken < 23
    lines = result.stdout.rstrip().splitlines()
    assert lines[-1] == f"exit taken by {taken} of 23 images ({100 * taken / 23:.1f} %)"
    rows = [line for line in lines if ".png" in line]
    assert len(rows) == 23
    assert sum("exit (exit taken)" in row for row in rows) == taken
    assert sum("finish" in row for row in rows) == 23 - taken
    # every line with a score is an image's
    assert len(re.findall(r"\d%", "\n".join(lines[:-1]))) == 23


def test_few_images_have_all_their_labels(made: Made, pictures: Path) -> None:
    files = [pictures / "00.png", pictures / "07.png"]
    result = run("run", made.bundle.path, *files, cwd=pictures)
    assert len(re.findall(r"\d%", result.stdout)) == 2 * len(CLASSES)
    assert all(f" {label} " in result.stdout for label in CLASSES)


@pytest.mark.parametrize(("threshold", "taken"), [("0", 0), ("9", 23)])
def test_the_exit_can_be_moved(made: Made, pictures: Path, threshold: str, taken: int) -> None:
    result = run("run", made.bundle.path, pictures, "--exit-entropy", threshold, cwd=pictures)
    assert f"exit taken by {taken} of 23 images" in result.stdout


def test_an_exit_that_is_not_there_cannot_be_moved(tmp_path: Path, pictures: Path) -> None:
    bundle = write(tmp_path, "pipeline", ["onnx"], (4, 2)).bundle
    result = run("run", bundle.path, pictures, "--exit-entropy", "1", cwd=pictures)
    assert result.returncode == 2
    assert result.stderr.startswith("error: no stage but the last gives logits")
    result = run("run", bundle.path, pictures / "00.png", cwd=pictures)
    assert result.returncode == 0, result.stderr
    assert "stage" not in result.stdout
    assert "exit" not in result.stdout
    (row,) = json.loads(run("run", bundle.path, pictures / "00.png", "--json", cwd=pictures).stdout)
    assert (row["stage"], row["exit_taken"]) == ("classify", None)


def test_a_folder_without_images_is_one_clear_line(made: Made, tmp_path: Path) -> None:
    result = run("run", made.bundle.path, tmp_path, cwd=tmp_path)
    assert result.returncode == 2
    assert "a folder without images in it" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_images_of_a_folder_are_in_order_and_of_any_suffix(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.tiff", "c.pgm", "d.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in images_in(tmp_path)] == ["a.tiff", "b.JPG", "c.pgm"]


def test_other_verbs_take_grey_batches_of_several_stages(made: Made, pictures: Path) -> None:
    result = run("verify", made.bundle.path, cwd=pictures)
    assert result.returncode == 0, result.stderr + result.stdout
    assert "2 of 2" in result.stdout
    result = run("profile", made.bundle.path, "--runs", "3", "--json", cwd=pictures)
    assert result.returncode == 0, result.stderr
    assert Bundle.open(made.bundle.path).manifest.constants == {"exit_entropy": 0.5}

"""What Phoneward's Core ML backend does where coremltools alone would change the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from phoneward.bundle import Stage
from phoneward.errors import InvalidSpec
from phoneward.export.backends import BACKENDS, About, Graph
from phoneward.export.recipe import Recipe
from phoneward.quiet import noise_to
from phoneward.runtime.engines.mil.program import Program
from phoneward.spec import ImageSpec, TensorSpec

ROW = TensorSpec(name="row", shape=(1, 64))
STAGE = Stage(name="row", inputs=(ROW,), outputs=(TensorSpec(name="out", shape=(1, 64)),))


def lowered(module: nn.Module, folder: Path) -> Program:
    with noise_to(folder / "log"):
        graph = Graph(module.eval(), STAGE, About("row", "", "", "0"))
        BACKENDS.get("coreml").lower(graph, Recipe("coreml"), folder / "row.mlpackage")
    return Program.load(folder / "row.mlpackage")


def test_a_gelu_keeps_its_approximation(tmp_path: Path) -> None:
    row = torch.linspace(-4, 4, 64)[None]
    exact, tanh = nn.GELU(), nn.GELU(approximate="tanh")
    assert (exact(row) - tanh(row)).abs().max() > 1e-4
    for name, module in (("exact", exact), ("tanh", tanh)):
        (tmp_path / name).mkdir()
        program = lowered(module, tmp_path / name)
        answer = program({"row": row.numpy()})["out"]
        np.testing.assert_allclose(answer, module(row).numpy(), atol=1e-6)


def test_a_scale_and_a_shift_stay_exact(tmp_path: Path) -> None:
    class Normalise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(1, 64) + 0.5, requires_grad=False)
            self.shift = nn.Parameter(torch.rand(1, 64), requires_grad=False)

        def forward(self, row: torch.Tensor) -> torch.Tensor:
            return row * self.scale + self.shift

    torch.manual_seed(0)
    module, row = Normalise(), torch.linspace(0, 255, 64)[None]
    answer = lowered(module, tmp_path)({"row": row.numpy()})["out"]
    # coremltools' own passes make it smaller by 5e-6 of itself
    np.testing.assert_allclose(answer, module(row).numpy(), rtol=5e-7)


GREY = ImageSpec(height=12, width=12, channel_order="GRAY")
IMAGE = TensorSpec(name="image", shape=(1, 1, 12, 12), layout="NCHW")
LOGITS = TensorSpec(name="logits", shape=(1, 3), layout="NC")
FEATURES = TensorSpec(name="features", shape=(1, 5, 10, 10), layout="NCHW")
ABOUT = About("grey", "a grey network", "MIT", "1", ("ant", "bee", "cat"))


class Exit(nn.Module):
    """Features first, so that logits are not where a classifier of one output has them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(1, 5, 3), nn.Linear(5, 3)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.conv(image / 255)
        return features, 20 * self.head(features.mean((2, 3)))


class Finish(nn.Module):
    """Features and the image to logits: two inputs, of which one is an image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.head = nn.Linear(5, 3)

    def forward(self, features: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return self.head(features.mean((2, 3))) * image.mean((1, 2, 3))[:, None]


def saved(module: nn.Module, stage: Stage, folder: Path, about: About = ABOUT) -> Program:
    path = folder / f"{stage.name}.mlpackage"
    with noise_to(folder / "log"):
        BACKENDS.get("coreml").lower(Graph(module.eval(), stage, about), Recipe("coreml"), path)
    return Program.load(path)


def description(program: Program) -> Any:
    return program.package.spec.description


def grey_image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 1, 12, 12)).astype(np.float32)


def test_a_grey_classifier_with_a_second_output(tmp_path: Path) -> None:
    stage = Stage(name="exit", inputs=(IMAGE,), outputs=(FEATURES, LOGITS), image=GREY)
    program = saved(Exit(), stage, tmp_path)
    told = description(program)
    (image,) = told.input
    kind = image.type.imageType
    assert kind.ColorSpace.Name(kind.colorSpace) == "GRAYSCALE"
    assert (kind.width, kind.height) == (12, 12)
    assert image.shortDescription == "(1, 1, 12, 12) NCHW, grey 0 to 255"
    names = {each.name for each in told.output}
    assert names == {"features", "logits", "classLabel", "classLabel_probs"}

    answer = program({"image": grey_image()})
    with torch.no_grad():
        features, logits = Exit()(torch.from_numpy(grey_image()))
    np.testing.assert_allclose(answer["features"], features, atol=1e-5)
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-5)
    (scores,) = (dict(answer["classLabel_probs"]),)
    wanted = dict(zip(ABOUT.labels or (), logits.softmax(-1)[0].tolist(), strict=True))
    assert scores == pytest.approx(wanted, abs=1e-5)
    assert answer["classLabel"] == max(wanted, key=lambda label: wanted[label])


def test_a_classifier_of_two_inputs(tmp_path: Path) -> None:
    stage = Stage(name="finish", inputs=(FEATURES, IMAGE), outputs=(LOGITS,), image=GREY)
    program = saved(Finish(), stage, tmp_path)
    kinds = {each.name: each.type.WhichOneof("Type") for each in description(program).input}
    assert kinds == {"features": "multiArrayType", "image": "imageType"}
    features = np.random.default_rng(1).random((1, 5, 10, 10), np.float32)
    answer = program({"features": features, "image": grey_image()})["logits"]
    with torch.no_grad():
        wanted = Finish()(torch.from_numpy(features), torch.from_numpy(grey_image()))
    np.testing.assert_allclose(answer, wanted, rtol=1e-4)


def test_a_stage_without_logits_is_no_classifier(tmp_path: Path) -> None:
    converted = TensorSpec(name="converted", shape=(1, 1, 12, 12), layout="NCHW")
    stage = Stage(name="convert", inputs=(IMAGE,), outputs=(converted,), image=GREY)
    program = saved(nn.Conv2d(1, 1, 3, padding=1), stage, tmp_path)
    told = description(program)
    assert [each.name for each in told.output] == ["converted"]
    assert told.predictedFeatureName == ""


def batch(spec: TensorSpec) -> TensorSpec:
    return spec.model_copy(update={"shape": (4, *spec.shape[1:])})


@pytest.mark.parametrize("image", [GREY, None])
def test_batches_are_core_mls_own(image: ImageSpec | None, tmp_path: Path) -> None:
    outputs = (batch(FEATURES), batch(LOGITS))
    stage = Stage(name="exit", inputs=(batch(IMAGE),), outputs=outputs, image=image)
    with pytest.raises(InvalidSpec, match=r"single images \(MLArrayBatchProvider\): .* --batch"):
        saved(Exit(), stage, tmp_path)
    assert not (tmp_path / "exit.mlpackage").exists()


def test_a_batch_without_images_or_classes_is_a_tensor_like_others(tmp_path: Path) -> None:
    stage = Stage(
        name="exit", inputs=(batch(IMAGE),), outputs=(batch(FEATURES), batch(LOGITS)), image=None
    )
    program = saved(Exit(), stage, tmp_path, About("grey", "", "", "1"))
    images = (
        np.repeat(grey_image(), 4, axis=0) * np.arange(4, dtype=np.float32)[:, None, None, None]
    )
    with torch.no_grad():
        _, logits = Exit()(torch.from_numpy(images))
    np.testing.assert_allclose(program({"image": images})["logits"], logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_core_mls_own_engine_is_given_pictures_of_the_right_kind(channels: int, mode: str) -> None:
    """All of that engine that can be run without a Mac."""
    from phoneward.runtime.engines.coreml import _image

    array = np.random.default_rng(0).integers(0, 256, (1, channels, 4, 6)).astype(np.float32)
    picture = _image(array)
    assert (picture.mode, picture.size) == (mode, (6, 4))
    pixels = np.asarray(picture).reshape(4, 6, channels)
    np.testing.assert_array_equal(pixels.transpose(2, 0, 1), array[0])

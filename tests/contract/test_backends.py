"""What every backend promises, proved by lowering a small network at each of its precisions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoneward.bundle import Delegation, Stage, size_of
from phoneward.errors import InvalidSpec
from phoneward.export.backends import BACKENDS, About, Graph, Lowered
from phoneward.export.recipe import Recipe
from phoneward.names import Precision
from phoneward.quiet import noise_to
from phoneward.runtime.engines import ENGINES, engines_for, format_of, open_session
from phoneward.spec import ImageSpec, TensorSpec

LABELS = ("ant", "bee", "cat", "dog", "elk")
STAGE = Stage(
    name="classify",
    inputs=(TensorSpec(name="image", shape=(1, 3, 32, 32), layout="NCHW"),),
    outputs=(TensorSpec(name="logits", shape=(1, 5), layout="NC"),),
    image=ImageSpec(height=32, width=32),
)
ABOUT = About("tiny", "a small network", "MIT", "1.2.3", LABELS)
RECIPES = [Recipe(name, p) for name in BACKENDS for p in BACKENDS.get(name).precisions]
TOLERANCE = {Precision.FP32: 1e-4, Precision.FP16: 2e-2, Precision.INT8: 2e-2}


@dataclass(frozen=True)
class Made:
    """A file, what its backend says of it, an image, and PyTorch's answer before and after."""

    path: Path
    lowered: Lowered
    image: Any
    expected: Any
    afterwards: Any


def network() -> Any:
    import torch
    from torch import nn

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.hidden = nn.Linear(8, 1024)
            self.head = nn.Linear(1024, len(LABELS))

        def forward(self, image: Any) -> Any:
            features = self.conv(image * (1 / 255)).relu()
            pooled = features.mean((2, 3), keepdim=True).flatten(1)
            return self.head(self.hidden(pooled).relu())

    torch.manual_seed(0)
    return Tiny().eval()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[Recipe, Made]:
    import torch

    folder = tmp_path_factory.mktemp("lowered")
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 255
    files = {}
    for recipe in RECIPES:
        backend, module = BACKENDS.get(recipe.format), network()
        path = folder / f"{recipe}{backend.suffix}"
        expected = module(image).detach().numpy()
        with noise_to(folder / f"{recipe}.log"):
            lowered = backend.lower(Graph(module, STAGE, ABOUT), recipe, path)
        afterwards = module(image).detach().numpy()
        files[recipe] = Made(path, lowered, image.numpy(), expected, afterwards)
    return files


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_file_is_written_and_described(recipe: Recipe, made: dict[Recipe, Made]) -> None:
    one = made[recipe]
    assert size_of(one.path) > 0
    assert [spec.name for spec in one.lowered.inputs] == ["image"]
    assert one.lowered.outputs == STAGE.outputs
    assert one.lowered.inputs[0].dtype == "float32"


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_numbers_are_pytorchs(recipe: Recipe, made: dict[Recipe, Made]) -> None:
    engines = engines_for(recipe.format)
    if not engines:
        pytest.skip(f"no engine runs {recipe.format} here")
    one = made[recipe]
    (spec,) = one.lowered.inputs
    image = one.image.transpose(0, 2, 3, 1) if spec.layout == "NHWC" else one.image
    with open_session(engines[0], one.path, (spec,), one.lowered.outputs) as session:
        logits = session({"image": image})["logits"]
    assert np.abs(logits - one.expected).max() <= TOLERANCE[recipe.precision] * np.ptp(one.expected)


@pytest.mark.parametrize("name", BACKENDS)
def test_fewer_bits_make_a_smaller_file(name: str, made: dict[Recipe, Made]) -> None:
    recipes = [recipe for recipe in RECIPES if recipe.format == name]
    sizes = {recipe.precision: size_of(made[recipe].path) for recipe in recipes}
    for precision in set(sizes) - {Precision.FP32}:
        assert sizes[precision] < sizes[Precision.FP32]
    # 13 thousand weights of linear layers, of which each has three bytes less
    if Precision.INT8 in sizes:
        assert sizes[Precision.INT8] < sizes[Precision.FP32] - 2 * 13312


@pytest.mark.parametrize("name", BACKENDS)
def test_what_a_backend_states_of_itself(name: str) -> None:
    backend = BACKENDS.get(name)
    assert backend.suffix.startswith(".")
    assert Precision.FP32 in backend.precisions
    assert backend.distributions
    suffixes = [BACKENDS.get(other).suffix for other in BACKENDS]
    assert suffixes.count(backend.suffix) == 1


def test_every_format_has_an_engine_and_every_engine_a_format() -> None:
    assert {format_of(engine) for engine in ENGINES} == set(BACKENDS)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_lowering_leaves_the_network_as_it_was(recipe: Recipe, made: dict[Recipe, Made]) -> None:
    np.testing.assert_array_equal(made[recipe].afterwards, made[recipe].expected)


@pytest.mark.parametrize("precision", BACKENDS.get("tflite").precisions, ids=str)
def test_tflite_takes_images_channel_last(precision: Precision, made: dict[Recipe, Made]) -> None:
    (spec,) = made[Recipe("tflite", precision)].lowered.inputs
    assert (spec.shape, spec.layout) == ((1, 32, 32, 3), "NHWC")


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "tflite"])
def test_the_other_formats_keep_the_layout(name: str, made: dict[Recipe, Made]) -> None:
    assert made[Recipe(name)].lowered.inputs == STAGE.inputs


@pytest.mark.parametrize("precision", BACKENDS.get("onnx").precisions, ids=str)
def test_onnx_carries_labels_names_and_its_description(
    precision: Precision, made: dict[Recipe, Made]
) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(made[Recipe("onnx", precision)].path)
    onnx.checker.check_model(model, full_check=True)
    properties = {each.key: each.value for each in model.metadata_props}
    assert properties["labels"].split("\n") == list(LABELS)
    assert (properties["title"], properties["licence"]) == ("tiny", "MIT")
    assert (properties["version"], model.doc_string) == ("1.2.3", "a small network")
    assert [each.name for each in model.graph.input] == ["image"]
    assert [each.name for each in model.graph.output] == ["logits"]
    types = {each.type.tensor_type.elem_type for each in (*model.graph.input, *model.graph.output)}
    assert types == {onnx.TensorProto.FLOAT}
    assert not [each for each in model.graph.initializer if each.external_data]


def test_half_precision_halves_the_weights_of_onnx(made: dict[Recipe, Made]) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(made[Recipe("onnx", Precision.FP16)].path)
    weights = [each for each in model.graph.initializer if len(each.dims) > 1]
    assert weights
    assert {each.data_type for each in weights} == {onnx.TensorProto.FLOAT16}


def test_executorch_leaves_nothing_outside_xnnpack(made: dict[Recipe, Made]) -> None:
    delegation = made[Recipe("executorch")].lowered.delegation
    assert isinstance(delegation, Delegation)
    assert (delegation.delegate, delegation.partitions) == ("XNNPACK", 1)
    assert delegation.fallback == {}
    assert delegation.delegated_ops >= 5


def test_executorch_names_what_is_left_outside_xnnpack(tmp_path: Path) -> None:
    """XNNPACK takes a mean over rows and columns only if it keeps them."""
    import torch
    from torch import nn

    class Outside(nn.Module):
        def forward(self, image: Any) -> Any:
            return image.relu().mean((2, 3)).relu()

    pooled = TensorSpec(name="pooled", shape=(1, 3), layout="NC")
    stage = STAGE.model_copy(update={"outputs": (pooled,)})
    with noise_to(tmp_path / "log"), torch.no_grad():
        lowered = BACKENDS.get("executorch").lower(
            Graph(Outside().eval(), stage, ABOUT), Recipe("executorch"), tmp_path / "x.pte"
        )
    assert lowered.delegation is not None
    assert lowered.delegation.fallback == {"mean.dim": 1}
    assert lowered.delegation.partitions == 2


def spec_of(path: Path) -> Any:
    coremltools = pytest.importorskip("coremltools")
    return coremltools.models.MLModel(str(path), skip_model_load=True).get_spec()


@pytest.mark.parametrize("precision", BACKENDS.get("coreml").precisions, ids=str)
def test_coreml_is_an_image_classifier(precision: Precision, made: dict[Recipe, Made]) -> None:
    spec = spec_of(made[Recipe("coreml", precision)].path)
    (image,) = spec.description.input
    assert (image.name, image.type.WhichOneof("Type")) == ("image", "imageType")
    kind = image.type.imageType
    assert kind.ColorSpace.Name(kind.colorSpace) == "RGB"
    assert (kind.width, kind.height) == (32, 32)
    assert spec.description.predictedFeatureName == "classLabel"
    outputs = {each.name: each.type for each in spec.description.output}
    assert set(outputs) == {"logits", "classLabel", "classLabel_probs"}
    logits = outputs["logits"].multiArrayType
    assert (list(logits.shape), logits.ArrayDataType.Name(logits.dataType)) == ([1, 5], "FLOAT32")
    # the class labels are the strings of the program's `classify` operation
    assert all(label.encode() in spec.SerializeToString() for label in LABELS)
    about = spec.description.metadata
    assert (about.license, about.versionString) == ("MIT", "1.2.3")
    assert about.shortDescription == "a small network"


def test_coreml_without_labels_has_only_logits(tmp_path: Path) -> None:
    about = About("tiny", "a small network", "MIT", "1.2.3")
    with noise_to(tmp_path / "log"):
        BACKENDS.get("coreml").lower(
            Graph(network(), STAGE, about), Recipe("coreml"), tmp_path / "x.mlpackage"
        )
    spec = spec_of(tmp_path / "x.mlpackage")
    assert [each.name for each in spec.description.output] == ["logits"]
    assert spec.description.predictedFeatureName == ""


@pytest.mark.parametrize(("target", "version"), [(None, 8), ("iOS17", 8), ("iOS18", 9)])
def test_the_target_decides_the_version(target: str | None, version: int, tmp_path: Path) -> None:
    recipe = Recipe("coreml", Precision.FP16, target)
    with noise_to(tmp_path / "log"):
        BACKENDS.get("coreml").lower(
            Graph(network(), STAGE, ABOUT), recipe, tmp_path / "x.mlpackage"
        )
    assert spec_of(tmp_path / "x.mlpackage").specificationVersion == version


@pytest.mark.parametrize("target", ["iOS16", "ios18", "macOS15"])
def test_an_unknown_target_is_refused(target: str, tmp_path: Path) -> None:
    out = tmp_path / "x.mlpackage"
    with pytest.raises(InvalidSpec, match="known: iOS17, iOS18"):
        BACKENDS.get("coreml").lower(
            Graph(network(), STAGE, ABOUT), Recipe("coreml", target=target), out
        )
    assert not out.exists()

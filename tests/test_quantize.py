"""int8: the weights of linear layers are in 8 bits in every format, and only they."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phoneward.bundle import Stage, size_of
from phoneward.errors import MissingExtra
from phoneward.export.backends import BACKENDS, About, Graph, Lowered
from phoneward.export.models import find
from phoneward.export.pipeline import Options, export_bundle
from phoneward.export.quantize import LEAST_WEIGHTS
from phoneward.export.recipe import Recipe
from phoneward.export.request import make_request
from phoneward.names import ParityStatus, Precision
from phoneward.quiet import noise_to
from phoneward.runtime.engines import engines_for, open_session
from phoneward.runtime.parity import THRESHOLDS, compare
from phoneward.spec import TensorSpec

ROW = TensorSpec(name="row", shape=(1, 784), layout="NC")
STAGE = Stage(
    name="classify",
    inputs=(ROW,),
    outputs=(
        TensorSpec(name="logits", shape=(1, 10), layout="NC"),
        TensorSpec(name="image", shape=(1, 784), layout="NC"),
    ),
)
FP32, FP16, INT8 = Precision.FP32, Precision.FP16, Precision.INT8
PRECISIONS = (FP32, FP16, INT8)
# (outputs, inputs) of the layers whose weights are in 8 bits; the last is as small as they come
LINEAR = {(512, 784), (64, 512), (784, 64), (64, 16)}
FLOATS = {(16, 1, 3, 3), (16, 16, 3, 3)}
WEIGHTS = sum(a * b for a, b in LINEAR)


class Converter(nn.Module):
    """A converting autoencoder before a small network with layers on tokens and too small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 64), nn.ReLU())
        self.spread = nn.Linear(64, 784)
        self.conv = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
        self.tokens = nn.Linear(16, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, row: Tensor) -> tuple[Tensor, Tensor]:
        image = self.spread(self.squeeze(row))
        maps = self.conv(image.reshape(1, 1, 28, 28))
        tokens = self.tokens(maps.flatten(2).transpose(1, 2)).relu()
        return self.head(tokens.mean(1)), image


@dataclass(frozen=True)
class Made:
    """The files of a format by precision, what its backend said of them, a row and the answers."""

    paths: dict[Precision, Path]
    lowered: dict[Precision, Lowered]
    row: NDArray[np.float32]
    expected: dict[str, NDArray[np.float32]]

    def answers(self, name: str, precision: Precision) -> dict[str, NDArray[Any]]:
        (engine, *_) = engines_for(name)
        lowered = self.lowered[precision]
        with open_session(
            engine, self.paths[precision], lowered.inputs, lowered.outputs
        ) as session:
            return dict(session({"row": self.row}))

    def error(self, name: str, precision: Precision) -> float:
        """The largest error of an output over its range."""
        answers = self.answers(name, precision)
        return max(
            compare(key, value[None], answers[key][None]).relative_error
            for key, value in self.expected.items()
        )


def network() -> nn.Module:
    """Rows of weights differ in size a thousandfold, as trained ones may."""
    torch.manual_seed(0)
    model = Converter().eval()
    with torch.no_grad():
        for layer in (model.squeeze[0], model.squeeze[2], model.spread):
            weight: Any = layer.weight
            weight *= torch.logspace(-3, 0, len(weight))[torch.randperm(len(weight)), None]
        # a channel that nothing goes through has no range
        model.squeeze[0].weight[7] = 0  # type: ignore[index]
    return model


def lower(name: str, precisions: tuple[Precision, ...], folder: Path) -> Made:
    module, backend = network(), BACKENDS.get(name)
    row = torch.rand(1, 784, generator=torch.Generator().manual_seed(1))
    paths, said = {}, {}
    for precision in precisions:
        recipe = Recipe(name, precision)
        paths[precision] = folder / f"{recipe}{backend.suffix}"
        graph = Graph(module, STAGE, About("converter", "", "MIT", "1"))
        with noise_to(folder / f"{recipe}.log"):
            said[precision] = backend.lower(graph, recipe, paths[precision])
    with torch.no_grad():
        logits, image = module(row)
    return Made(paths, said, row.numpy(), {"logits": logits.numpy(), "image": image.numpy()})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    folder = tmp_path_factory.mktemp("quantized")
    return {name: lower(name, PRECISIONS if name == "coreml" else (FP32, INT8), folder)
            for name in BACKENDS}  # fmt: skip


@pytest.mark.parametrize("name", BACKENDS)
def test_every_format_has_it(name: str) -> None:
    assert BACKENDS.get(name).precisions == PRECISIONS


@pytest.mark.parametrize("name", BACKENDS)
def test_a_file_loses_three_bytes_of_each_weight(name: str, made: dict[str, Made]) -> None:
    sizes = {precision: size_of(path) for precision, path in made[name].paths.items()}
    saved = 1 if name == "coreml" else 3
    whole = sizes[FP16 if name == "coreml" else FP32]
    assert whole - sizes[INT8] == pytest.approx(saved * WEIGHTS, rel=0.05)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_answers_are_close_but_not_those_of_floats(name: str, made: dict[str, Made]) -> None:
    """Four to seven parts in ten thousand; 5e-3 where sums of products saturate."""
    assert made[name].error(name, INT8) < 2e-3 < THRESHOLDS[INT8].relative_error
    if name != "coreml":  # which multiplies halves by these weights, and rounds as much in fp16
        assert made[name].error(name, INT8) > 100 * made[name].error(name, FP32)


def test_tflite_has_linear_layers_in_8_bits_and_xnnpack_takes_them(made: dict[str, Made]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(made["tflite"].paths[INT8]))
    tensors = interpreter.get_tensor_details()
    weights = {tuple(t["shape"]): t for t in tensors if t["dtype"] == np.int8}
    assert set(weights) == LINEAR
    for shape, tensor in weights.items():
        parameters = tensor["quantization_parameters"]
        assert (len(parameters["scales"]), parameters["quantized_dimension"]) == (shape[0], 0)
        assert not parameters["zero_points"].any()
    floats = {tuple(map(int, t["shape"])) for t in tensors if t["dtype"] == np.float32}
    assert floats >= {(16, 3, 3, 16), (10, 64)}
    delegation = made["tflite"].lowered[INT8].delegation
    assert delegation is not None
    assert (delegation.partitions, delegation.fallback) == (1, {})


def test_onnx_has_linear_layers_in_8_bits(made: dict[str, Made]) -> None:
    import onnx

    model = onnx.load(made["onnx"].paths[INT8])
    onnx.checker.check_model(model, full_check=True)
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    weights = [arrays[node.input[1]] for node in products]
    assert {each.shape[::-1] for each in weights} == LINEAR
    assert len(products) == len(LINEAR)
    for node, weight in zip(products, weights, strict=True):
        assert weight.dtype == np.int8
        # in 8 bits, pairs of products would not fit into 16 bits on some processors
        assert np.abs(weight).max() == 64
        assert not arrays[node.input[3]].any()
        assert arrays[node.input[1].replace("_quantized", "_scale")].shape == weight.shape[1:]
    assert {each.shape for each in arrays.values() if each.dtype == np.float32} >= FLOATS
    assert [node.op_type for node in model.graph.node].count("Conv") == 2
    assert not {"ConvInteger", "Gemm"} & {node.op_type for node in model.graph.node}
    assert not [each.key for each in model.metadata_props if each.key.startswith("onnx")]


def test_onnx_runtime_fuses_what_quantizes(made: dict[str, Made], tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        str(made["onnx"].paths[INT8]), options, providers=["CPUExecutionProvider"]
    )
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    fused = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat")
    assert sum(kinds.count(kind) for kind in fused) == len(LINEAR)


def test_the_quantizer_of_onnx_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from phoneward.export.quantize.onnx import quantized

    monkeypatch.setitem(__import__("sys").modules, "onnxruntime.quantization", None)
    with pytest.raises(MissingExtra, match="onnxruntime"):
        quantized(object())


def test_executorch_has_linear_layers_in_8_bits(made: dict[str, Made]) -> None:
    from phoneward.export.quantize.executorch import quantized

    module = network()
    program = quantized(Graph(module, STAGE, About("converter", "", "MIT", "1")))
    constants = {**program.state_dict, **program.constants}
    tensors = [each for each in constants.values() if isinstance(each, Tensor)]
    weights = {tuple(t.shape): t for t in tensors if t.dtype == torch.int8}
    assert set(weights) == LINEAR
    assert {int(weight.abs().max()) for weight in weights.values()} == {127}
    assert {tuple(t.shape) for t in tensors if t.dtype == torch.float32} >= FLOATS
    # every row has a scale of its own, also the small ones, and uses all its bits
    used = weights[64, 512].abs().amax(1)
    assert used.min() == 127
    assert next(module.parameters()).dtype == torch.float32


def test_executorch_leaves_nothing_outside_xnnpack(made: dict[str, Made]) -> None:
    delegation = made["executorch"].lowered[INT8].delegation
    whole = made["executorch"].lowered[FP32].delegation
    assert delegation is not None
    assert whole is not None
    assert (delegation.partitions, delegation.fallback) == (whole.partitions, whole.fallback)


def test_two_engines_with_the_same_kernels_agree(made: dict[str, Made]) -> None:
    """LiteRT and ExecuTorch have XNNPACK round the same activations to the same 8 bits."""
    one, other = (made[name].answers(name, INT8) for name in ("tflite", "executorch"))
    for name, expected in made["tflite"].expected.items():
        apart = np.abs(one[name] - other[name]).max() / np.ptp(expected)
        assert apart < 1e-5
        assert np.abs(one[name] - expected).max() / np.ptp(expected) > 20 * apart


@pytest.mark.parametrize("target", ["iOS17", "iOS18"])
def test_coreml_has_linear_layers_in_8_bits(target: str, tmp_path: Path) -> None:
    import coremltools

    path = tmp_path / "converter.mlpackage"
    with noise_to(tmp_path / "log"):
        BACKENDS.get("coreml").lower(
            Graph(network(), STAGE, About("converter", "", "MIT", "1")),
            Recipe("coreml", INT8, target),
            path,
        )
    spec = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec()
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    kinds = coremltools.proto.MIL_pb2.DataType
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for op in block.operations:
        if op.type == "const" or op.type.startswith("constexpr"):
            tensor = op.outputs[0].type.tensorType
            shape = tuple(each.constant.size for each in tensor.dimensions)
            kind = op.type if op.type != "const" else kinds.Name(tensor.dataType)
            shapes.setdefault(kind, set()).add(shape)
    unpacking = {"iOS17": "constexpr_affine_dequantize", "iOS18": "constexpr_blockwise_shift_scale"}
    assert shapes[unpacking[target]] == LINEAR
    assert {*FLOATS, (10, 64)} <= shapes["FLOAT16"]
    assert not LINEAR & shapes["FLOAT16"]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "onnx" else [pytest.mark.matrix]) for name in BACKENDS],
)
def test_a_classifier_with_trained_weights_passes_its_gate(name: str, tmp_path: Path) -> None:
    request = make_request("efficientnet_lite0", "pretrained", (), [name], [INT8])
    bundle = export_bundle(request, tmp_path / "bundle", Options(use_cache=False))
    (artifact,) = bundle.manifest.artifacts
    (output,) = artifact.parity.outputs
    assert artifact.parity.status is ParityStatus.OK
    assert artifact.parity.top1_agreement == 1
    # 4e-3 to 8e-3 so far
    assert 1e-3 < output.relative_error < 1.5e-2
    # the head has 1,280 x 1,000 weights
    whole = (2 if name == "coreml" else 4) * find("efficientnet_lite0")[0].parameters
    saved = (1 if name == "coreml" else 3) * 1280 * 1000
    assert artifact.bytes < whole - saved * 0.9


def test_small_matrices_stay_exact(tmp_path: Path) -> None:
    """A product with fewer weights is the same file's as in single precision."""
    count = LEAST_WEIGHTS // 784 * 784

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Linear(784, count // 784, bias=False)

        def forward(self, row: Tensor) -> Tensor:
            return self.mean(row)

    torch.manual_seed(0)
    module, row = Mean().eval(), torch.rand(1, 784)
    output = TensorSpec(name="mean", shape=(1, count // 784), layout="NC")
    stage = Stage(name="mean", inputs=(ROW,), outputs=(output,))
    for name in ("executorch", "onnx", "tflite"):
        path = tmp_path / f"mean{BACKENDS.get(name).suffix}"
        with noise_to(tmp_path / f"{name}.log"):
            BACKENDS.get(name).lower(
                Graph(module, stage, About("mean", "", "MIT", "1")), Recipe(name, INT8), path
            )
        with open_session(engines_for(name)[0], path, (ROW,), (output,)) as session:
            answer = session({"row": row.numpy()})["mean"]
        np.testing.assert_allclose(answer, module(row).detach().numpy(), rtol=1e-5, atol=1e-6)

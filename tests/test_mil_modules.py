"""Module names that travel with a Core ML package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import coremltools as ct
import pytest
import torch
from torch import Tensor, nn

from phoneward.bundle import Stage
from phoneward.export.backends import About, Graph
from phoneward.export.backends.coreml import COREML
from phoneward.export.models.normalize import Normalized
from phoneward.export.recipe import Recipe
from phoneward.names import Precision
from phoneward.quiet import noise_to
from phoneward.runtime.engines.mil.modules import METADATA, Modules, op_name, plain
from phoneward.runtime.engines.mil.package import Package, open_package
from phoneward.spec import ImageSpec, TensorSpec


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).reshape(1, 16, 3, 8).permute(2, 0, 1, 3).unbind(0)
        return (q @ k.transpose(-2, -1)).softmax(-1) @ v


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.GELU())
        self.blocks = nn.ModuleList([Attention(), Attention()])
        self.shared = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.stem(image).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = tokens + block(self.shared(tokens))
        return self.head(tokens.mean(1))


def exported(folder: Path, precision: Precision, labels: tuple[str, ...] | None) -> Package:
    torch.manual_seed(0)
    image = ImageSpec(height=16, width=16)
    stage = Stage(
        name="classify",
        inputs=(TensorSpec(name="image", shape=(1, 3, 16, 16), dtype="float32", layout="NCHW"),),
        outputs=(TensorSpec(name="logits", shape=(1, 5), dtype="float32", layout="NC"),),
        image=image,
    )
    module = Normalized(Model(), (0.5,) * 3, (0.25,) * 3, width=16).eval()
    about = About("model", "a model", "MIT", "1", labels)
    path = folder / f"{precision}.mlpackage"
    with noise_to(folder / "log"):
        COREML.lower(Graph(module, stage, about), Recipe("coreml", precision), path)
    return open_package(path)


@pytest.fixture(scope="module", params=[Precision.FP32, Precision.FP16])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Package:
    labels = tuple(f"label {i}" for i in range(5)) if request.param is Precision.FP16 else None
    return exported(tmp_path_factory.mktemp("exported"), request.param, labels)


def test_every_op_of_an_export_has_the_module_it_was_called_in(package: Package) -> None:
    modules = Modules.of(package)
    ops = list(package.program().functions["main"].operations)
    found = {op.name: modules.module_of(op.name) for op in ops if op.op_type != "const"}
    assert None not in found.values()

    by_type: dict[str, list[str | None]] = {}
    for op in ops:
        by_type.setdefault(op.op_type, []).append(modules.module_of(op.name))
    assert by_type["conv"] == ["stem.0"]
    assert by_type["gelu"] == ["stem.1"]
    assert by_type["layer_norm"] == ["shared", "shared"]
    assert by_type["linear"] == ["blocks.0.qkv", "blocks.1.qkv", "head"]
    assert by_type["softmax"][:2] == ["blocks.0", "blocks.1"]
    # transposes get new names, `transpose_1` among them, which are names of nodes too
    assert set(by_type["transpose"]) <= {"blocks.0", "blocks.1", ""}
    assert {"blocks.0", "blocks.1"} < set(by_type["transpose"])


def test_the_image_is_normalized_by_the_wrapper_and_labels_are_of_the_model(
    package: Package,
) -> None:
    modules = Modules.of(package)
    main = package.program().functions["main"]
    first = next(op for op in main.operations if op.op_type in ("mul", "batch_norm", "add"))
    assert modules.module_of(first.name) == "normalize"
    for op in main.find_ops(op_type="classify"):
        assert modules.module_of(op.name) == ""


def test_results_and_constants_are_traced_to_the_ops_around_them(package: Package) -> None:
    modules = Modules.of(package)
    constants = 0
    for op in package.program().functions["main"].operations:
        if op.op_type != "const":
            named = {modules.module_of_result(var.name) for var in op.outputs}
            assert named == {modules.module_of(op.name)}
        elif op.name in modules.readers:
            (reader, *others) = {modules.module_of(r.name) for r in op.outputs[0].child_ops}
            assert modules.module_of(op.name) == (None if others else reader)
            constants += 1
    assert constants > 10


def test_metadata_is_compact_json_of_module_paths(package: Package) -> None:
    text = package.spec.description.metadata.userDefined[METADATA]
    grouped = json.loads(text)
    assert text == json.dumps(grouped, separators=(",", ":"))
    assert {"normalize", "stem.0", "blocks.1.qkv", "head", ""} <= set(grouped)
    assert not any(path.startswith("body") for path in grouped)


def spec_of(metadata: str | None, edges: dict[str, tuple[str, ...]]) -> Any:
    """A program of ops, by name, with the results that each reads; results are called as ops."""
    spec = ct.proto.Model_pb2.Model()
    if metadata is not None:
        spec.description.metadata.userDefined[METADATA] = metadata
    block = spec.mlProgram.functions["main"].block_specializations["CoreML7"]
    for name, sources in edges.items():
        op = block.operations.add(type="relu")
        op.outputs.add(name=name)
        for source in sources:
            op.inputs["x"].arguments.add(name=source)
    return spec


CHAIN: dict[str, tuple[str, ...]] = {
    "lost_first": (),
    "a_cast_fp16": ("lost_first",),
    "lost_second": ("a_cast_fp16",),
    "b": ("lost_second",),
    "c": (),
    "lost_between": ("b", "c"),
    "lost_last": ("lost_between",),
    "lost_alone": (),
}
NAMES = '{"block.a":["a_cast_fp16"],"block.b":["b"],"block.c":["c"]}'


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("a_cast_fp16", "block.a"),
        ("a", "block.a"),
        ("a_quantized_cast_fp16", "block.a"),
        ("op_b", "block.b"),
        ("lost_first", "block.a"),
        ("lost_second", "block.a"),
        ("lost_between", None),
        ("lost_last", None),
        ("lost_alone", None),
        ("nowhere", None),
    ],
)
def test_names_resolve_exactly_then_plainly_then_by_the_nearest_op(
    name: str, module: str | None
) -> None:
    assert Modules.from_spec(spec_of(NAMES, CHAIN)).module_of(name) == module


def test_a_plain_name_that_two_modules_share_is_told_by_neither() -> None:
    both = '{"one":["a_cast_fp16"],"two":["a_quantized"]}'
    modules = Modules.from_spec(spec_of(both, {"a_cast_fp16": (), "a_quantized": ()}))
    assert modules.module_of("a_cast_fp16") == "one"
    assert modules.module_of("a") is None


@pytest.mark.parametrize("metadata", [None, "", "{", "[1]", '{"a": 1}', '{"a": [1]}', "[" * 10**5])
def test_packages_without_sound_metadata_tell_nothing(metadata: str | None) -> None:
    modules = Modules.from_spec(spec_of(metadata, CHAIN))
    assert not modules
    assert modules.module_of("a_cast_fp16") is None


def test_plain_names_keep_their_numbers() -> None:
    assert plain("conv2d_1_cast_fp16") == "conv2d_1"
    assert plain("var_add_3_to_fp16_quantized") == "add_3"
    assert plain("op_12") == "op_12"


def test_op_names_are_those_of_coremltools(package: Package) -> None:
    block = package.spec.mlProgram.functions["main"].block_specializations["CoreML7"]
    names = [op_name(op) for op in block.operations if op.type != "const"]
    operations = package.program().functions["main"].operations
    assert names == [op.name for op in operations if op.op_type != "const"]

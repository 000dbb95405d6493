"""EfficientTAM's Core ML packages have the names, shapes and types of the contract."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phoneward.bundle import Stage
from phoneward.export.backends import BACKENDS, About, Graph
from phoneward.export.models import find
from phoneward.export.recipe import Recipe
from phoneward.export.rewrites import apply_all
from phoneward.names import Precision
from phoneward.quiet import noise_to
from tests.efficienttam_stages import golden_stages

VARIANT = "efficienttam_ti_512x512"
STAGES = {stage.name: stage for stage in find(VARIANT)[0].stages}
TARGETS = {"iOS17": 8, "iOS18": 9}  # specification version of a target
MOST_RANK = 5


def lower(stage: Stage, target: str, path: Path) -> Any:
    """Write a package and read it back as a protocol buffer."""
    import coremltools as ct

    card, family = find(VARIANT)
    recipe = Recipe("coreml", Precision.FP16, target)
    module = copy.deepcopy(golden_stages(VARIANT, 5.0)[stage.name].module)
    with noise_to(path.with_suffix(".log")):
        apply_all(module, family.rewrites(card, recipe))
        graph = Graph(module, stage, About(VARIANT, "golden weights", "none", "0"))
        BACKENDS.get("coreml").lower(graph, recipe, path)
        return ct.models.utils.load_spec(str(path))


def operations(block: Any) -> Iterator[Any]:
    """Walk a block and the blocks inside its operations."""
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from operations(inner)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", STAGES)
def test_a_package_is_what_the_contract_says(name: str, target: str, tmp_path: Path) -> None:
    from coremltools.proto import MIL_pb2
    from coremltools.proto.FeatureTypes_pb2 import ArrayFeatureType

    stage, float32 = STAGES[name], ArrayFeatureType.FLOAT32
    spec = lower(stage, target, tmp_path / f"{name}.mlpackage")
    assert spec.specificationVersion == TARGETS[target]

    for feature in spec.description.input:
        assert ("RGB" in feature.shortDescription) == (feature.name == "image")
    inputs = {feature.name: feature.type for feature in spec.description.input}
    assert set(inputs) == {tensor.name for tensor in stage.inputs}
    for tensor in stage.inputs:
        kind = inputs[tensor.name]
        if kind.WhichOneof("Type") == "imageType":
            assert (1, 3, kind.imageType.height, kind.imageType.width) == tensor.shape
            continue
        assert tuple(kind.multiArrayType.shape) == tensor.shape
        assert kind.multiArrayType.dataType == float32
    outputs = {feature.name: feature.type.multiArrayType for feature in spec.description.output}
    assert set(outputs) == {tensor.name for tensor in stage.outputs}
    assert {kind.dataType for kind in outputs.values()} == {float32}

    (function,) = spec.mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    found = Counter[str]()
    for operation in operations(block):
        found[operation.type] += 1
        for value in operation.outputs:
            tensor_type = value.type.tensorType
            assert tensor_type.rank <= MOST_RANK, (operation.type, value.name)
            assert tensor_type.dataType != MIL_pb2.INT64
    print(f"{name} {target}: {dict(sorted(found.items()))}")  # noqa: T201 - shown by pytest -rP
    assert found["matmul"] + found["linear"] > 0
    # what no Core ML device computes in one step, or only on the CPU
    assert not found.keys() & {"while_loop", "cond", "custom_layer", "gather", "scatter", "topk"}
    shapes = {value.name: value.type.tensorType for op in operations(block) for value in op.outputs}
    for tensor in stage.outputs:
        dimensions = shapes[tensor.name].dimensions
        assert tuple(one.constant.size for one in dimensions) == tensor.shape

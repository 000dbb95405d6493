"""EfficientTAM's Core ML packages are what the contract says, and compute what PyTorch does."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from phoneward.bundle import Stage
from phoneward.export.backends import BACKENDS, About, Graph
from phoneward.export.models import find
from phoneward.export.recipe import Recipe
from phoneward.export.rewrites import apply_all
from phoneward.names import Precision
from phoneward.quiet import noise_to
from phoneward.runtime.engines import open_session
from phoneward.runtime.parity import compare
from tests.efficienttam_stages import TorchStage

if TYPE_CHECKING:
    from phoneward.export.models.family import Examples

VARIANT = "efficienttam_ti_512x512"
STAGES = {stage.name: stage for stage in find(VARIANT)[0].stages}
TARGETS = {"iOS17": 8, "iOS18": 9}  # specification version of a target
# the newer target differs in little: in the matrix
EACH_TARGET = [
    pytest.param(target, marks=[] if target == "iOS17" else [pytest.mark.matrix])
    for target in TARGETS
]
MOST_RANK = 5


@cache
def random_stages() -> dict[str, TorchStage]:
    """With the weights of `--weights random`: the examples avoid choices that are near ties."""
    card, family = find(VARIANT)
    modules = family.build(card, None)
    return {name: TorchStage(stage, modules[name]) for name, stage in STAGES.items()}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Lowers a stage for a target in half precision when it is first asked for."""
    folder = tmp_path_factory.mktemp("packages")

    def package(name: str, target: str) -> Path:
        path = folder / f"{name}-{target}.mlpackage"
        if not path.exists():
            lower(STAGES[name], target, path)
        return path

    return package


def lower(stage: Stage, target: str, path: Path) -> None:
    card, family = find(VARIANT)
    recipe = Recipe("coreml", Precision.FP16, target)
    module = copy.deepcopy(random_stages()[stage.name].module)
    with noise_to(path.with_suffix(".log")):
        apply_all(module, family.rewrites(card, recipe))
        graph = Graph(module, stage, About(VARIANT, "random weights", "none", "0"))
        BACKENDS.get("coreml").lower(graph, recipe, path)


def operations(block: Any) -> Iterator[Any]:
    """Walk a block and the blocks inside its operations."""
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from operations(inner)


@pytest.mark.parametrize("target", EACH_TARGET)
@pytest.mark.parametrize("name", STAGES)
def test_a_package_is_what_the_contract_says(
    name: str, target: str, packages: Callable[[str, str], Path]
) -> None:
    import coremltools as ct
    from coremltools.proto import MIL_pb2
    from coremltools.proto.FeatureTypes_pb2 import ArrayFeatureType

    stage, float32 = STAGES[name], ArrayFeatureType.FLOAT32
    spec = ct.models.utils.load_spec(str(packages(name, target)))
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


@pytest.fixture(scope="module")
def examples() -> Mapping[str, Examples]:
    card, family = find(VARIANT)
    modules = {name: stage.module for name, stage in random_stages().items()}
    return family.examples(card, modules)


@pytest.mark.parametrize("target", EACH_TARGET)
@pytest.mark.parametrize("name", STAGES)
def test_a_package_computes_what_pytorch_does(
    name: str,
    target: str,
    packages: Callable[[str, str], Path],
    examples: Mapping[str, Examples],
) -> None:
    stage, runner = STAGES[name], random_stages()[name]
    with open_session("mil", packages(name, target), stage.inputs, stage.outputs) as session:
        for sample in range(len(examples[name].real)):
            given = {
                tensor.name: examples[name].inputs[tensor.name][sample].astype(np.float32)
                for tensor in stage.inputs
            }
            expected, got = runner(given), session(given)
            for output, truth in expected.items():
                error = compare(output, truth[None], got[output][None]).relative_error
                # the gate's bound of half precision
                assert error <= 2e-2, (output, sample, error)

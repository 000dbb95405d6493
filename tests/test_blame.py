"""Faults planted into packages are found and named, and what is right is not blamed."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from phoneward.errors import EngineError
from phoneward.export.backends import BACKENDS, About, Graph
from phoneward.export.backends.trace import example_inputs
from phoneward.export.blame.compare import blame
from phoneward.export.blame.values import brief
from phoneward.export.models import find
from phoneward.export.recipe import Recipe
from phoneward.export.rewrites import apply_all
from phoneward.names import Precision
from phoneward.quiet import noise_to
from phoneward.runtime.engines.mil.modules import plain
from phoneward.runtime.engines.mil.precision import OVERFLOW
from tests.blame_models import (
    Attention,
    BicubicByMatmul,
    Centred,
    Loud,
    Normed,
    Upsampling,
    exported,
    package,
    tamper,
)

SQUARE = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
IMAGE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Fault:
    """Another value for an argument of an op; `target` and `module` are PyTorch's."""

    op: str
    argument: str
    value: Any
    target: str
    module: str


@pytest.fixture(scope="module")
def attentions(tmp_path_factory: pytest.TempPathFactory) -> Mapping[bool, Path]:
    """Packages of `Attention` by whether they are in half precision; copied before tampering."""
    folder = tmp_path_factory.mktemp("attention")
    return {
        half: package(exported(Attention(), SQUARE), folder / f"{half}.mlpackage", half=half)
        for half in (False, True)
    }


def copied(path: Path, folder: Path) -> Path:
    return Path(shutil.copytree(path, folder / path.name))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    ("module", "sample"),
    [(Attention(), SQUARE), (Upsampling("bilinear"), IMAGE), (Normed(), IMAGE)],
    ids=["attention", "upsampling", "normed"],
)
def test_what_is_right_is_not_blamed(
    module: nn.Module, sample: torch.Tensor, half: bool, tmp_path: Path
) -> None:
    program = exported(module, sample)
    report = blame(package(program, tmp_path / "right.mlpackage", half=half), program, [sample])
    assert report.unpaired is None
    assert report.blames == ()
    assert report.names + report.positions == report.ops
    assert max(report.outputs.values()) < 1e-3
    assert report.precision.findings == ()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("softmax", "axis", -2, "aten.softmax.int", ""),
        Fault("transpose", "perm", [0, 1, 2], "aten.transpose.int", ""),
        Fault("layer_norm", "epsilon", 0.1, "aten.layer_norm.default", "norm"),
        Fault("linear_1", "bias", np.full(8, 0.2), "aten.linear.default", "out"),
    ],
    ids=lambda fault: fault.op,
)
def test_a_wrong_argument_is_named(
    fault: Fault, half: bool, attentions: Mapping[bool, Path], tmp_path: Path
) -> None:
    path = copied(attentions[half], tmp_path)
    tamper(path, fault.op, fault.argument, fault.value)
    report = blame(path, exported(Attention(), SQUARE), [SQUARE])
    (found,) = report.blames
    assert (found.node, found.target, found.module) == (fault.op, fault.target, fault.module)
    assert found.between == ()
    assert found.error > 10 * report.bound


def test_bilinear_in_place_of_bicubic_is_named(tmp_path: Path) -> None:
    path = package(exported(Upsampling("bilinear"), IMAGE), tmp_path / "bilinear.mlpackage")
    report = blame(path, exported(Upsampling("bicubic"), IMAGE), [IMAGE])
    (found,) = report.blames
    assert (found.type, found.target) == ("upsample_bilinear", "aten.upsample_bicubic2d.vec")
    assert found.node == "upsample_bicubic2d"


def test_bicubic_in_place_of_bilinear_is_named(tmp_path: Path) -> None:
    path = package(exported(BicubicByMatmul(), IMAGE), tmp_path / "bicubic.mlpackage")
    report = blame(path, exported(Upsampling("bilinear"), IMAGE), [IMAGE])
    (found,) = report.blames
    assert (found.node, found.target) == ("upsample_bilinear2d", "aten.upsample_bilinear2d.vec")
    assert {found.op, *found.between} == {"matmul", "matmul_1"}


def test_a_mean_over_another_axis_is_named_although_its_shape_differs(tmp_path: Path) -> None:
    path = package(exported(Centred(3), IMAGE), tmp_path / "rows.mlpackage")
    (found,) = blame(path, exported(Centred(2), IMAGE), [IMAGE]).blames
    assert (found.op, found.type, found.node) == ("mean", "reduce_mean", "mean")
    assert (found.target, found.node_arguments) == ("aten.mean.dim", "[2], True")
    assert found.between == ("sub",)


def test_weights_of_a_folded_convolution_are_named_by_both_modules(tmp_path: Path) -> None:
    other = Centred()
    other.one[0], other.two[0] = other.two[0], other.one[0]
    path = package(exported(other, IMAGE), tmp_path / "swapped.mlpackage", half=True)
    first, second = blame(path, exported(Centred(), IMAGE), [IMAGE]).blames
    assert [first.module, second.module] == ["one.1", "two.1"]
    assert first.target == "aten._native_batch_norm_legit_no_training.default"
    assert first.skipped == ("conv2d of one.0 (aten.conv2d.default)",)


@pytest.mark.parametrize(("loudness", "op"), [(3e4, "mul_1"), (1e5, "mul")])
def test_what_overflows_is_named_with_its_module_in_any_package(
    loudness: float, op: str, tmp_path: Path
) -> None:
    rows = torch.rand(1, 4, 16, generator=torch.Generator().manual_seed(2)) + 1
    program = exported(nn.Sequential(nn.Identity(), Loud(loudness)), rows)
    path = package(program, tmp_path / "loud.mlpackage", half=True)
    first = blame(path, program, [rows]).precision.findings[0]
    assert first.kind == OVERFLOW
    assert first.op.module == "1"
    # a constant beyond 65504 stays in single precision, and the cast after it overflows
    assert plain(first.op.name) == op or first.text.endswith(f"(values of {op})")


def test_arguments_are_told_in_few_characters() -> None:
    arguments = {"y": torch.tensor(0.3), "axes": (3,), 0: [1, 2], "w": torch.ones(4), "eps": 1e-5}
    assert brief(arguments) == "y=0.3, axes=(3,), [1, 2], eps=1e-05"
    assert brief({"long": [1] * 9, "holds": (1, torch.ones(4)), "mode": "EXACT", "on": True}) == (
        "mode=EXACT, on=True"
    )


def test_two_faults_are_both_named(attentions: Mapping[bool, Path], tmp_path: Path) -> None:
    path = copied(attentions[False], tmp_path)
    tamper(path, "softmax", "axis", -2)
    tamper(path, "layer_norm", "epsilon", 0.1)
    found = [one.node for one in blame(path, exported(Attention(), SQUARE), [SQUARE]).blames]
    assert found == ["layer_norm", "softmax"]


def test_a_fault_after_fused_ops_is_not_blamed_on_them(tmp_path: Path) -> None:
    program = exported(Normed(), IMAGE)
    path = package(program, tmp_path / "wrong.mlpackage")
    tamper(path, "gelu", "mode", "SIGMOID_APPROXIMATION")
    (found,) = blame(path, program, [IMAGE]).blames
    assert (found.node, found.arguments) == ("gelu", "mode=SIGMOID_APPROXIMATION")


def test_an_approximation_is_named_in_single_precision(tmp_path: Path) -> None:
    program = exported(Normed(), IMAGE)
    path = package(program, tmp_path / "tanh.mlpackage")
    tamper(path, "gelu", "mode", "TANH_APPROXIMATION")
    (found,) = blame(path, program, [IMAGE]).blames
    assert (found.node, found.arguments) == ("gelu", "mode=TANH_APPROXIMATION")
    assert found.error < 5e-4


def test_an_approximation_that_the_converter_drops_is_named(tmp_path: Path) -> None:
    program = exported(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(approximate="tanh")), IMAGE)
    path = package(program, tmp_path / "exact.mlpackage")
    (found,) = blame(path, program, [IMAGE]).blames
    assert (found.arguments, found.node_arguments, found.module) == (
        "mode=EXACT",
        "approximate=tanh",
        "1",
    )


def test_a_traced_model_is_not_guessed_at(tmp_path: Path) -> None:
    import coremltools as ct

    module = Attention().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it is deprecated, and still in use
        traced = torch.jit.trace(module, SQUARE)
    path = package(
        traced, tmp_path / "traced.mlpackage", inputs=[ct.TensorType(shape=SQUARE.shape)]
    )
    report = blame(path, exported(module, SQUARE), [SQUARE])
    assert report.blames == ()
    assert report.unpaired is not None
    assert "torch.jit.trace" in report.unpaired


def test_other_inputs_are_refused(attentions: Mapping[bool, Path]) -> None:
    with pytest.raises(EngineError, match="takes 1 inputs"):
        blame(attentions[False], exported(Attention(), SQUARE), [SQUARE, SQUARE])


def test_a_fault_in_a_hybrid_is_named(tmp_path: Path) -> None:
    card, family = find("mobilevit_xxs")
    (stage,) = card.stages
    module = family.build(card, None)[stage.name]
    recipe = Recipe("coreml", Precision.FP16, "iOS17")
    apply_all(module, family.rewrites(card, recipe))
    path = tmp_path / "hybrid.mlpackage"
    with noise_to(tmp_path / "log"):
        about = About(card.name, "random weights", "none", "0")
        BACKENDS.get("coreml").lower(Graph(module, stage, about), recipe, path)
        program = exported(module, *example_inputs(stage))
    image = family.examples(card, {})[stage.name].inputs["image"][0]
    assert blame(path, program, [image]).blames == ()
    tamper(path, "softmax_4", "axis", -2)
    (found,) = blame(path, program, [image]).blames
    assert found.node == "softmax_4"
    assert found.module == "stages.3.1.layers.2.attention"

"""Ops that half precision cannot hold are proposed, kept in single precision, and recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from phoneward.apps.cli import verify
from phoneward.bundle import (
    MANIFEST,
    Artifact,
    Manifest,
    Parity,
    Stage,
    Weights,
    sha256_of,
    size_of,
)
from phoneward.errors import InvalidSpec
from phoneward.export.backends import BACKENDS, About, Graph
from phoneward.export.blame.settle import kept_in, settle
from phoneward.export.cache import key_of
from phoneward.export.models.family import Examples
from phoneward.export.recipe import AUTO, Recipe
from phoneward.export.reference import write_reference
from phoneward.export.request import keep_in_float, make_request
from phoneward.names import ParityStatus, Precision
from phoneward.quiet import noise_to
from phoneward.runtime.engines.mil.program import Program
from phoneward.runtime.parity import Reference, check_artifact
from phoneward.spec import TensorSpec
from tests.blame_models import Attention, Loud

HALF = Recipe("coreml", Precision.FP16, "iOS17")


def stage_of(*shape: int) -> Stage:
    x = TensorSpec(name="x", shape=shape, layout="NLC")
    return Stage(name="squeeze", inputs=(x,), outputs=(x.model_copy(update={"name": "y"}),))


class Workshop:
    """Converts one module by recipe, as an export does; `recipes` are those asked for."""

    def __init__(self, module: nn.Module, stage: Stage, folder: Path) -> None:
        self.module, self.stage, self.folder = module.eval(), stage, folder
        self.recipes: list[Recipe] = []
        shape = stage.inputs[0].shape
        rows = np.random.default_rng(0).random((3, *shape)).astype(np.float16)
        examples = {stage.name: Examples({"x": rows}, np.array([True, True, False]))}
        write_reference({stage.name: self.module}, (stage,), examples, folder / "reference.npz")
        self.reference = Reference.load(folder / "reference.npz")

    def convert(self, recipe: Recipe) -> Artifact:
        self.recipes.append(recipe)
        path = self.folder / "squeeze.mlpackage"
        graph = Graph(self.module, self.stage, About("small", "", "none", "0"))
        with noise_to(self.folder / "log"):
            lowered = BACKENDS.get("coreml").lower(graph, recipe, path)
            kept = kept_in(path, lowered.kept) if lowered.kept else None
        artifact = Artifact(
            stage=self.stage.name,
            format=recipe.format,
            precision=recipe.precision,
            path=path.name,
            bytes=size_of(path),
            sha256=sha256_of(path),
            inputs=lowered.inputs,
            outputs=lowered.outputs,
            parity=Parity(status=ParityStatus.NOT_EXECUTED),
            keep_fp32=kept,
        )
        parity = check_artifact(path, artifact, self.reference)
        return artifact.model_copy(update={"parity": parity})

    def settled(self, *names: str) -> Artifact:
        recipe = Recipe(HALF.format, HALF.precision, HALF.target, names)
        return settle(self.convert, recipe, self.folder, self.reference)


@pytest.mark.parametrize(
    ("loudness", "why"),
    [(300.0, "half precision ends at 65504"), (1e-5, "the outputs' error goes from")],
    ids=["overflow", "underflow"],
)
def test_what_half_precision_cannot_hold_is_kept(loudness: float, why: str, tmp_path: Path) -> None:
    shop = Workshop(Loud(loudness), stage_of(1, 4, 16), tmp_path)
    artifact = shop.settled(AUTO)
    assert artifact.parity.status is ParityStatus.OK
    assert artifact.keep_fp32 is not None
    kept = artifact.keep_fp32
    assert {"sum_1", "sqrt"} <= {op.op for op in kept.kept}
    assert any(why in op.reason for op in kept.kept)
    assert len(shop.recipes) == 2
    assert 2 <= kept.float_ops < kept.ops
    # without what was kept it fails, so that all this was of use
    assert shop.convert(HALF).parity.status is ParityStatus.FAILED


def test_verify_proposes_what_to_keep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = Workshop(Loud(300.0), stage_of(1, 4, 16), tmp_path)
    manifest = Manifest(
        model="loud",
        family="tests",
        weights=Weights(kind="random", source="none", seed=0),
        devices=(),
        stages=(shop.stage,),
        artifacts=(shop.convert(HALF),),
        reference="reference.npz",
        reference_sha256=sha256_of(tmp_path / "reference.npz"),
        tools={},
    )
    (tmp_path / MANIFEST).write_text(manifest.model_dump_json())
    assert verify.command(tmp_path, threads=1, blame=True, json_output=True) == 1
    (told,) = json.loads(capsys.readouterr().out)["blame"]
    assert {"sum_1", "sqrt"} <= {op["name"] for op in told["proposal"]["kept"]}
    assert told["proposal"]["after"] <= 1 < told["proposal"]["before"]
    assert verify.command(tmp_path, threads=1, blame=True) == 1
    shown = capsys.readouterr().out
    assert "what to keep in fp32" in shown
    assert "--keep-fp32 auto" in shown


def test_a_package_that_passes_is_left_alone(tmp_path: Path) -> None:
    shop = Workshop(Attention(), stage_of(1, 8, 8), tmp_path)
    artifact = shop.settled(AUTO)
    assert artifact.parity.status is ParityStatus.OK
    assert len(shop.recipes) == 1
    assert artifact.keep_fp32 is not None
    assert (artifact.keep_fp32.kept, artifact.keep_fp32.float_ops) == ((), 0)


def test_what_nothing_helps_is_given_up(tmp_path: Path) -> None:
    class Doubled(nn.Module):
        """Exact in half precision; it is the reference that will be wrong."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    shop = Workshop(Doubled(), stage_of(1, 4, 16), tmp_path)
    wrong = {**shop.reference.arrays}
    wrong["squeeze/output/y"] = wrong["squeeze/output/y"][:, :, ::-1]
    shop.reference = Reference(wrong)
    artifact = shop.settled(AUTO)
    assert artifact.parity.status is ParityStatus.FAILED
    assert len(shop.recipes) == 1


@pytest.mark.parametrize(
    ("name", "ops"),
    [
        ("softmax", {"softmax"}),
        ("softmax_cast_fp16", {"softmax"}),
        ("norm", {"layer_norm"}),
        ("out", {"linear_1"}),
        ("nothing", set()),
    ],
)
def test_ops_are_kept_by_name_and_by_module(name: str, ops: set[str], tmp_path: Path) -> None:
    shop = Workshop(Attention(), stage_of(1, 8, 8), tmp_path)
    artifact = shop.convert(Recipe("coreml", Precision.FP16, "iOS17", (name,)))
    assert artifact.keep_fp32 is not None
    kept = artifact.keep_fp32.kept
    assert {op.op for op in kept} == ops
    assert {op.name for op in kept} <= {name}
    plan = Program.load(tmp_path / artifact.path).plan
    in_float = {
        step.op.name
        for step in plan.steps
        if step.op.name != "cast" and step.outputs[0].dtype == "fp32"
    }
    assert len(in_float) == len(ops) == artifact.keep_fp32.float_ops


def test_what_is_kept_decides_the_bytes() -> None:
    recipes = [HALF, *(Recipe("coreml", Precision.FP16, "iOS17", (n,)) for n in (AUTO, "a", "b"))]
    assert len({key_of({"recipe": recipe}) for recipe in recipes}) == len(recipes)


def test_only_half_precision_packages_keep_anything() -> None:

    request = make_request(
        "mobilevit_xxs", "random", (), ["coreml", "onnx"], [Precision.FP16, Precision.FP32]
    )
    kept = {str(r): r.keep_fp32 for r in keep_in_float(request, ["a", "a", AUTO]).recipes}
    assert kept == {
        "coreml-fp16": ("a", AUTO),
        "coreml-fp32": (),
        "onnx-fp16": (),
        "onnx-fp32": (),
    }
    assert keep_in_float(request, []) == request
    other = make_request("mobilevit_xxs", "random", (), ["coreml"])
    with pytest.raises(InvalidSpec, match="only coreml-fp16"):
        keep_in_float(other, [AUTO])

"""Lints: each rule on a program that was made to break it, and none on what is fine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Program, types
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
from torch import nn

from phoneward.bundle import Stage
from phoneward.errors import EngineError
from phoneward.export.backends import About, Graph
from phoneward.export.backends.coreml import COREML
from phoneward.export.models.normalize import Normalized
from phoneward.export.recipe import Recipe
from phoneward.names import Precision
from phoneward.quiet import noise_to
from phoneward.runtime.engines.mil.lints import RULES, Lint, lint
from phoneward.runtime.engines.mil.lints.operations import GATHERS, NEWER_CHIPS, NO_PATH
from phoneward.runtime.engines.mil.lints.shapes import CONVOLUTIONS, LAYOUT
from phoneward.runtime.engines.mil.modules import METADATA
from phoneward.runtime.engines.mil.package import Package, open_package
from phoneward.spec import ImageSpec, TensorSpec

HALF = np.float16
MAP = (1, 16, 32, 32)


@dataclass(frozen=True)
class Planted:
    """A program of one function of `x`; `ops` are the ops that a rule must name."""

    body: Callable[[Any], Any]
    ops: tuple[str, ...] = ("planted",)
    shape: tuple[int, ...] = MAP
    target: Any = ct.target.iOS18
    dtype: Any = types.fp16


def half(*shape: int) -> np.ndarray[Any, Any]:
    return np.full(shape, 0.5, HALF)


def conv(x: Any, out: int, kernel: int = 3, name: str | None = None) -> Any:
    weight = half(out, x.shape[1], kernel, kernel)
    return mb.conv(x=x, weight=weight, pad_type="same", name=name or f"conv_to_{out}")


def branch(x: Any) -> Any:
    large = mb.greater(x=mb.reduce_max(x=x), y=HALF(0))
    return mb.cond(
        pred=mb.squeeze(x=large),
        _true_fn=lambda: mb.relu(x=x),
        _false_fn=lambda: mb.sigmoid(x=x),
        name="planted",
    )


def windows(x: Any) -> Any:
    six = mb.reshape(x=x, shape=[1, 16, 4, 8, 4, 8], name="planted")
    moved = mb.transpose(x=six, perm=[0, 1, 2, 4, 3, 5], name="planted_too")
    return mb.reshape(x=moved, shape=[1, 16, 16, 64])


def through_half(x: Any) -> Any:
    return mb.cast(x=mb.relu(x=mb.cast(x=x, dtype="fp16")), dtype="fp32")


def scattered(x: Any) -> Any:
    where = np.zeros((1, 16, 32, 1), np.int32)
    return mb.scatter_along_axis(
        data=x, indices=where, updates=half(1, 16, 32, 1), axis=3, name="planted"
    )


def tokens(x: Any) -> Any:
    flat = mb.reshape(x=conv(x, 16), shape=[1, 16, 1024], name="planted")
    return mb.layer_norm(x=mb.transpose(x=flat, perm=[0, 2, 1], name="planted_too"), axes=[2])


def volume(x: Any) -> Any:
    return mb.conv(x=x, weight=half(8, 8, 1, 1, 1), name="planted")


def one_hot(x: Any) -> Any:
    best = mb.reduce_argmax(x=x, axis=1, keep_dims=False)
    return mb.one_hot(indices=best, one_hot_vector_size=16, axis=1, name="planted")


def counted(x: Any) -> Any:
    return mb.add(x=mb.reduce_argmax(x=x, axis=1), y=np.int32(1), name="planted")


# every rule has at least one
PLANTED: dict[str, list[Planted]] = {
    "float32-compute": [Planted(lambda x: mb.relu(x=x, name="planted"), dtype=types.fp32)],
    "float32-border": [
        Planted(
            lambda x: mb.relu(x=mb.cast(x=x, dtype="fp16")),
            ops=("x",),
            shape=(1, 16, 64, 64),
            dtype=types.fp32,
        )
    ],
    "old-target": [Planted(through_half, ops=("main",), target=ct.target.iOS15, dtype=types.fp32)],
    "rank-over-5": [Planted(windows, ops=("planted", "planted_too"))],
    "too-wide": [
        Planted(lambda x: mb.reshape(x=x, shape=[1, 16385], name="planted"), shape=(1, 1, 5, 3277)),
        Planted(
            lambda x: mb.relu(x=mb.concat(values=[x, x], axis=1, name="planted"), name="after"),
            ops=("planted", "after"),
            shape=(1, 32769, 1, 32),
        ),
    ],
    "padded-rows": [
        Planted(
            lambda x: mb.relu(x=mb.reshape(x=x, shape=[1, 16, 16384, 1], name="planted")),
            ops=("planted", "relu_0"),
            shape=(1, 16, 128, 128),
        )
    ],
    "padded-channels": [Planted(lambda x: conv(conv(x, 30, name="planted"), 32))],
    "layout-by-conv": [
        Planted(tokens, ops=("planted", "planted_too")),
        Planted(lambda x: conv(mb.transpose(x=x, perm=[0, 3, 1, 2], name="planted"), 16)),
    ],
    "no-engine-path": [
        Planted(lambda x: mb.reduce_prod(x=x, axes=[-1], name="planted")),
        Planted(lambda x: mb.mod(x=x, y=HALF(2), name="planted")),
        Planted(one_hot),
    ],
    "gather-scatter": [
        Planted(lambda x: mb.gather(x=x, indices=[0, 5], axis=1, name="planted")),
        Planted(scattered),
    ],
    "newer-chips-only": [
        Planted(lambda x: mb.sin(x=x, name="planted")),
        Planted(lambda x: mb.topk(x=x, k=5, axis=-1, name="planted")[0]),
    ],
    "control-flow": [Planted(branch)],
    "integer-compute": [Planted(counted)],
    "conv-3d": [Planted(volume, shape=(1, 8, 4, 32, 32))],
    "wide-kernel": [Planted(lambda x: conv(x, 16, kernel=14, name="planted"))],
    "long-argmax": [
        Planted(lambda x: mb.reduce_argmax(x=x, axis=1, name="planted"), shape=(1, 2049, 32))
    ],
    "padding": [
        Planted(
            lambda x: mb.pad(
                x=x, pad=[0, 0, 1, 1], mode="reflect", constant_val=HALF(0), name="planted"
            )
        ),
        Planted(
            lambda x: mb.pad(
                x=x, pad=[0, 0, 0, 8, 0, 0, 0, 0], constant_val=HALF(0), name="planted"
            )
        ),
    ],
    "rank-5-matmul": [
        Planted(
            lambda x: mb.matmul(x=x, y=x, transpose_y=True, name="planted"), shape=(1, 2, 4, 8, 32)
        )
    ],
}
# planted in packages of their own, by the tests below
ELSEWHERE = {"dynamic-shapes", "unplanned-functions"}


def written(folder: Path, planted: Planted) -> Package:
    """The package of a program; every op is of the module `net.` + its type."""

    def body(x: Any) -> Any:
        return planted.body(x)

    spec = mb.TensorSpec(shape=planted.shape, dtype=planted.dtype)
    program = mb.program(input_specs=[spec], opset_version=planted.target)(body)
    with noise_to(folder / "log"):
        model = ct.convert(
            program,
            source="milinternal",
            convert_to="mlprogram",
            minimum_deployment_target=planted.target,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )
    return saved(folder, model)


def saved(folder: Path, model: Any) -> Package:
    modules: dict[str, list[str]] = {}
    for op in model._mil_program.functions["main"].operations:
        modules.setdefault(f"net.{op.op_type}", []).append(op.name)
    model.user_defined_metadata[METADATA] = json.dumps(modules)
    model.save(str(folder / "planted.mlpackage"))
    return open_package(folder / "planted.mlpackage")


@pytest.fixture
def any_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coremltools as converters that check no ranks: its own refuses to write more than five."""
    monkeypatch.setattr(Program, "_check_invalid_tensor_rank", lambda program: None)


@pytest.mark.usefixtures("any_rank")
@pytest.mark.parametrize(
    ("code", "planted"),
    [
        pytest.param(code, planted, id=f"{code}-{number}")
        for code, cases in PLANTED.items()
        for number, planted in enumerate(cases)
    ],
)
def test_a_rule_finds_what_was_planted_and_no_other_rule_anything(
    code: str, planted: Planted, tmp_path: Path
) -> None:
    package = written(tmp_path, planted)
    (found,) = lint(package)
    assert found.code == code
    assert found.ops == planted.ops
    types_of = {op.name: op.op_type for op in package.program().functions["main"].operations}
    modules = [f"net.{types_of[name]}" for name in planted.ops if name in types_of]
    assert found.modules == tuple(dict.fromkeys(modules))


def test_every_rule_has_evidence_and_is_planted() -> None:
    codes = [rule.code for rule in RULES]
    assert len(set(codes)) == len(codes)
    assert set(codes) == set(PLANTED) | ELSEWHERE
    for rule in RULES:
        assert rule.evidence
        assert all(len(source) > 20 for source in rule.evidence)
        assert rule.message[0].islower() or rule.message.startswith("MLComputePlan")
        assert not rule.message.endswith((".", ":"))


def test_ops_are_known_to_coremltools() -> None:
    known = set(SSAOpRegistry.core_ops)
    assert known >= NO_PATH | NEWER_CHIPS | GATHERS | LAYOUT | CONVOLUTIONS


# what is just within the limits
CLEAN = {
    "kernel of 13": Planted(lambda x: conv(x, 16, kernel=13)),
    "axis of 16384": Planted(lambda x: mb.reshape(x=x, shape=[1, 16384]), shape=(1, 1, 4, 4096)),
    "argmax of 2048": Planted(lambda x: mb.reduce_argmax(x=x, axis=1), shape=(1, 2048, 32)),
    "constant padding": Planted(
        lambda x: mb.pad(x=x, pad=[0, 0, 0, 0, 1, 1, 2, 2], constant_val=HALF(0))
    ),
    "small float32 input": Planted(
        lambda x: mb.relu(x=mb.cast(x=x, dtype="fp16")), shape=(1, 16, 8, 511), dtype=types.fp32
    ),
    "few channels of a head": Planted(lambda x: conv(x, 5)),
    "rank 5": Planted(lambda x: mb.reshape(x=x, shape=[1, 4, 4, 32, 32])),
    "short rows of a small tensor": Planted(
        lambda x: mb.reduce_mean(x=x, axes=[2, 3], keep_dims=True)
    ),
    "flattening behind a convolution": Planted(
        lambda x: mb.reshape(x=conv(x, 16), shape=[1, 16384])
    ),
    "moving a vector": Planted(
        lambda x: mb.expand_dims(x=conv(x, 16), axes=[4]), shape=(1, 16, 1, 1)
    ),
    "layout away from convolutions": Planted(
        lambda x: mb.softmax(x=mb.transpose(x=mb.relu(x=conv(x, 16)), perm=[0, 2, 3, 1]), axis=-1)
    ),
    "iOS 16": Planted(lambda x: mb.relu(x=x), target=ct.target.iOS16),
    "attention": Planted(
        lambda x: mb.matmul(x=mb.softmax(x=mb.matmul(x=x, y=x, transpose_y=True), axis=-1), y=x),
        shape=(1, 4, 64, 32),
    ),
}


@pytest.mark.parametrize("planted", CLEAN.values(), ids=CLEAN)
def test_what_is_within_the_limits_is_left_alone(planted: Planted, tmp_path: Path) -> None:
    assert lint(written(tmp_path, planted)) == ()


class Block(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(channels, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
        )
        self.depthwise = nn.Conv2d(out, out, 7, padding=3, groups=out)
        self.last = nn.Conv2d(out, out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return x + self.last(nn.functional.silu(self.depthwise(x)))


class PlainNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(3, 16), Block(16, 24), Block(24, 48), Block(48, 96))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(96, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.blocks(x)).mean((2, 3)))


def exported(folder: Path, precision: Precision, module: nn.Module) -> Package:
    stage = Stage(
        name="classify",
        inputs=(TensorSpec(name="image", shape=(1, 3, 96, 96), dtype="float32", layout="NCHW"),),
        outputs=(TensorSpec(name="logits", shape=(1, 10), dtype="float32", layout="NC"),),
        image=ImageSpec(height=96, width=96),
    )
    about = About("net", "a net", "MIT", "1", tuple(f"label {i}" for i in range(10)))
    graph = Graph(Normalized(module, (0.5,) * 3, (0.25,) * 3, width=96).eval(), stage, about)
    with noise_to(folder / "log"):
        COREML.lower(graph, Recipe("coreml", precision), folder / "net.mlpackage")
    return open_package(folder / "net.mlpackage")


def test_a_plain_network_as_exported_has_no_lints(tmp_path: Path) -> None:
    assert lint(exported(tmp_path, Precision.FP16, PlainNet())) == ()


def test_in_single_precision_it_has_one_that_names_all_its_modules(tmp_path: Path) -> None:
    (found,) = lint(exported(tmp_path, Precision.FP32, PlainNet()))
    assert (found.code, found.effect) == ("float32-compute", "leaves")
    assert len(found.ops) > 20
    assert {"normalize", "blocks.0.first.2", "blocks.3.last", "head"} <= set(found.modules)
    assert ": 12 conv, " in found.message


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (ct.Shape((1, 3, ct.RangeDim(16, 32), 16)), "input of a range of shapes"),
        (ct.EnumeratedShapes([(1, 3, 16, 16), (1, 3, 32, 32)]), "input of enumerated shapes"),
        (ct.Shape((1, 3, 16, 16)), None),
    ],
)
@pytest.mark.parametrize("kind_of_input", [ct.TensorType, ct.ImageType])
def test_flexible_inputs_are_found(
    shape: Any, kind: str | None, kind_of_input: Any, tmp_path: Path
) -> None:
    with noise_to(tmp_path / "log"):
        traced = torch.jit.trace(nn.Conv2d(3, 16, 3).eval(), torch.zeros(1, 3, 16, 16))
        model = ct.convert(
            traced,
            inputs=[kind_of_input(name="x", shape=shape)],
            minimum_deployment_target=ct.target.iOS17,
            skip_model_load=True,
        )
    found = lint(saved(tmp_path, model))
    assert [(f.code, f.ops, f.message.rpartition(": 1 ")[2]) for f in found] == (
        [("dynamic-shapes", ("x",), kind)] if kind else []
    )


def test_functions_besides_the_default_one_are_told(tmp_path: Path) -> None:
    package = written(tmp_path, Planted(lambda x: mb.relu(x=x)))
    functions = package.spec.mlProgram.functions
    functions["prefill"].CopyFrom(functions["main"])
    (found,) = lint(package)
    assert (found.code, found.ops, found.effect) == ("unplanned-functions", ("prefill",), "tooling")


def test_many_findings_are_one_lint_with_counts(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        for op in (mb.tan, mb.sinh, mb.cosh, mb.asin, mb.acos, mb.atanh, mb.tan, mb.tan):
            x = op(x=x)
        return x

    (found,) = lint(written(tmp_path, Planted(body)))
    assert found.message.endswith(": 3 tan, 1 sinh, 1 cosh, 1 asin and 2 of 2 more kinds")
    assert len(found.ops) == 8
    assert found.modules[:2] == ("net.tan", "net.sinh")


def test_packages_of_others_are_linted_without_modules(tmp_path: Path) -> None:
    package = written(tmp_path, Planted(lambda x: mb.sin(x=x, name="planted")))
    package.spec.description.metadata.userDefined.clear()
    (found,) = lint(package)
    assert (found.ops, found.modules) == (("planted",), ())


def test_a_lint_is_a_value_that_json_holds() -> None:
    made = Lint(code="a", effect="slows", message="b", ops=("c",), modules=("",), evidence=("d",))
    assert Lint.model_validate_json(made.model_dump_json()) == made


def test_a_damaged_program_is_refused(tmp_path: Path) -> None:
    package = written(tmp_path, Planted(lambda x: mb.relu(x=x)))
    block = package.spec.mlProgram.functions["main"].block_specializations
    next(iter(block.values())).operations[-1].type = "no_such_op"
    with pytest.raises(EngineError, match="not a valid ML program"):
        lint(package)

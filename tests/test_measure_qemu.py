"""Emulated processors: right answers on Arm, and counts that can be held against the arithmetic."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from phoneward.bundle import MANIFEST, Bundle, Stage, sha256_of
from phoneward.names import Precision
from phoneward.profiles.measure import PLACES, Request, split_place
from phoneward.profiles.measure.emulator.cores import CORES
from phoneward.profiles.measure.emulator.guest import Counted, Program
from phoneward.profiles.measure.qemu import MOST_RUNS, profile
from phoneward.profiles.report.file import read_report, write_report
from phoneward.profiles.report.schema import Emulated
from phoneward.quiet import noise_to
from phoneward.runtime.artifacts import Wanted
from phoneward.spec import TensorSpec
from tests.conftest import INPUTS, OUTPUTS, lower, named
from tests.qemu_emulator import emulator, needs_emulator, own_cache

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = needs_emulator

# the layers of `_network` on its input: 3x3 convolutions of stride 2, one 1x1, one linear
_SIDE = 96
_MACS = 48 * 48 * 32 * 27 + 24 * 24 * 64 * 288 + 12 * 12 * 128 * 576 + 12 * 12 * 128 * 128 + 1280
_IMAGE = TensorSpec(name="image", shape=(1, 3, _SIDE, _SIDE), layout="NCHW")
_LOGITS = TensorSpec(name="logits", shape=(1, 10), layout="NC")


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("emulator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHONEWARD_CACHE", str(folder))
        left = own_cache(folder)
        yield
        assert len(list(left.iterdir())) == 1


def silent(step: str) -> None:
    pass


def _network() -> Any:
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(64, 128, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(128, 128, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)),
    ).eval()


@dataclasses.dataclass(frozen=True)
class Made:
    """One network as a float and an int8 artifact, an input, and PyTorch's answer."""

    programs: dict[str, Program]
    image: NDArray[np.float32]
    expected: NDArray[np.float32]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    import torch

    folder = tmp_path_factory.mktemp("network")
    torch.manual_seed(0)
    model, image = _network(), torch.rand(_IMAGE.shape)
    with torch.no_grad():
        expected = model(image).numpy()
    stage = Stage(name="classify", inputs=(_IMAGE,), outputs=(_LOGITS,))
    paths = {name: folder / f"{name}.tflite" for name in ("fp32", "int8")}
    lower("tflite", model, stage, paths["fp32"])
    with noise_to(folder / "quantizer.log"):
        paths["int8"].write_bytes(_quantized(paths["fp32"], image.numpy()))
    programs = {n: Program("litert", p, (_IMAGE,), (_LOGITS,)) for n, p in paths.items()}
    lower("executorch", model, stage, folder / "fp32.pte")
    programs["pte"] = Program("executorch", folder / "fp32.pte", (_IMAGE,), (_LOGITS,))
    return Made(programs, image.numpy(), expected)


def _quantized(path: Path, image: NDArray[np.float32]) -> bytes:
    """Weights and activations in eight bits; inputs and outputs stay floats."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import recipe
    from ai_edge_quantizer.quantizer import Quantizer

    ((key, signature),) = Interpreter(str(path)).get_signature_list().items()
    quantizer = Quantizer(str(path))
    floats = [
        {"regex": ".*", "operation": op, "algorithm_key": "no_quantize", "op_config": {}}
        for op in ("INPUT", "OUTPUT")
    ]
    quantizer.load_quantization_recipe([*recipe.static_wi8_ai8(), *floats])
    ranges = quantizer.calibrate({key: [{signature["inputs"][0]: image}]})
    return bytes(quantizer.quantize(ranges).quantized_model)


def count(made: Made, name: str, core: str, runs: int = 2) -> Counted:
    return emulator(core).run(made.programs[name], {"image": made.image}, runs)


def error_of(counted: Counted, made: Made) -> float:
    return float(np.abs(counted.outputs["logits"] - made.expected).max() / np.ptp(made.expected))


@pytest.mark.parametrize("name", ["fp32", "int8", "pte"])
def test_two_processes_count_the_same(made: Made, name: str) -> None:
    first, second = (count(made, name, "cortex-a76", runs) for runs in (2, 3))
    assert first.identical
    assert second.identical
    assert first.instructions[0] == second.instructions[0] == sum(first.by_class.values())
    assert first.by_class == second.by_class
    np.testing.assert_array_equal(first.outputs["logits"], second.outputs["logits"])


def test_int8_retires_about_a_third(made: Made) -> None:
    fp32, int8 = (count(made, name, "cortex-a76") for name in ("fp32", "int8"))
    assert 0.2 < int8.instructions[0] / fp32.instructions[0] < 0.45
    assert error_of(fp32, made) < 1e-6
    assert 1e-6 < error_of(int8, made) < 2e-2


@pytest.mark.parametrize(
    ("core", "name", "kind", "products", "padding"),
    [
        ("cortex-a53", "fp32", "fmla", 4, 0.02),
        ("cortex-a76", "fp32", "fmla", 4, 0.02),
        ("cortex-a76", "pte", "fmla", 4, 0.02),
        # kernels fill up to tiles: 27 products of the first layer are 32
        ("cortex-a76", "int8", "sdot", 16, 0.06),
        ("max", "int8", "smmla", 32, 0.16),
    ],
)
def test_products_add_up_to_the_models_multiply_accumulates(
    made: Made, core: str, name: str, kind: str, products: int, padding: float
) -> None:
    counted = count(made, name, core, 1)
    assert _MACS <= products * counted.by_class[kind] <= (1 + padding) * _MACS
    assert error_of(counted, made) < (2e-2 if name == "int8" else 1e-6)


def test_a_core_without_dot_products_multiplies_otherwise(made: Made) -> None:
    counted = count(made, "int8", "cortex-a72", 1)
    assert not {"sdot", "smmla"} & set(counted.by_class)
    assert counted.by_class["mla"] > _MACS / 16
    assert error_of(counted, made) < 2e-2


@pytest.mark.parametrize(("format_name", "engine"), [("tflite", "litert"), ("executorch",) * 2])
def test_tensors_keep_their_names(format_name: str, engine: str, tmp_path: Path) -> None:
    import torch
    from torch import nn

    class Network(nn.Module):
        def forward(self, image: Any, bias: Any) -> Any:
            plain = image[:, :, :10, 0].mean(1)
            return plain + bias, plain * 2, image[:, :1].repeat(1, 8, 1, 1)[:, :, ::2, ::2] + 1

    tensors = [torch.rand(spec.shape) for spec in INPUTS]
    answers = named(OUTPUTS, Network()(*tensors))
    stage = Stage(name="network", inputs=INPUTS, outputs=OUTPUTS)
    lower(format_name, Network().eval(), stage, tmp_path / "network")
    program = Program(engine, tmp_path / "network", INPUTS, OUTPUTS)
    counted = emulator("cortex-a76").run(program, named(INPUTS, tensors), 1)
    assert list(counted.outputs) == [spec.name for spec in OUTPUTS]
    for name, expected in answers.items():
        np.testing.assert_allclose(counted.outputs[name], expected, atol=1e-6)


def test_a_report_has_every_artifact_and_survives_a_file(bundle: Bundle, tmp_path: Path) -> None:
    steps: list[str] = []
    where, address = split_place("qemu:cortex-a76")
    report = PLACES.get(where)(address, Request(bundle, runs=2), steps.append)
    assert [(s.stage, s.format, s.engine) for s in report.stages] == [
        ("classify", "tflite", "litert"),
        ("classify", "executorch", "executorch"),
    ]
    assert len(steps) == 2
    assert report.place == "qemu:cortex-a76"
    assert report.machine.cpu == "cortex-a76"
    assert {"qemu", "ai-edge-litert", "executorch"} <= set(report.tools)
    assert not report.warnings
    for stage in report.stages:
        result = stage.result
        assert isinstance(result, Emulated)
        assert (result.runs, result.identical, stage.threads) == (2, True, 1)
        assert result.max_relative_error is not None
        assert result.max_relative_error < 1e-5
    write_report(report, tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text()
    assert "_ns" not in text
    assert "_ms" not in text
    assert read_report(tmp_path / "report.json") == report


def test_runs_that_nobody_needs_are_left_out_and_said(bundle: Bundle) -> None:
    wanted = Wanted(format_name="tflite")
    request = Request(bundle, wanted, runs=50, sustained_s=60.0, cores=(0,))
    report = profile("cortex-a53", request, silent)
    assert report.stages[0].result.runs == MOST_RUNS  # type: ignore[union-attr]
    assert [text.split()[0] for text in report.warnings] == ["3", "a", "binding"]


def test_a_model_of_several_stages_is_counted_stage_by_stage(
    bundle: Bundle, tmp_path: Path
) -> None:
    twice = _of_two_stages(bundle, tmp_path)
    wanted = Wanted(precision=Precision.FP32, engine="litert")
    report = profile("max", Request(twice, wanted, runs=1), silent)
    assert [stage.stage for stage in report.stages] == ["classify", "again"]
    first, second = (stage.result for stage in report.stages)
    assert first == second
    only = profile("max", Request(twice, wanted, stages=("again",), runs=1), silent)
    assert [stage.stage for stage in only.stages] == ["again"]


def test_wrong_answers_are_said(bundle: Bundle, tmp_path: Path) -> None:
    wrong = _of_two_stages(bundle, tmp_path, off_by=0.5)
    request = Request(wrong, Wanted(engine="litert"), stages=("again",), runs=1)
    report = profile("cortex-a76", request, silent)
    assert report.stages[0].result.max_relative_error > 0.01  # type: ignore[union-attr, operator]
    (said,) = report.warnings
    assert "again as tflite-fp32: relative error" in said


def _of_two_stages(bundle: Bundle, folder: Path, off_by: float = 0.0) -> Bundle:
    """The bundle's TFLite artifact as two stages; the second's reference is `off_by`."""
    with np.load(bundle.path / "reference.npz") as archive:
        arrays = dict(archive)
    for key in tuple(arrays):
        more = off_by if "/output/" in key else 0
        arrays[key.replace("classify/", "again/")] = arrays[key] + more if more else arrays[key]
    np.savez(folder / "reference.npz", **arrays)
    old = bundle.manifest
    (artifact,) = (a for a in old.artifacts if a.format == "tflite")
    for name in (artifact.path, old.labels or ""):
        (folder / name).write_bytes((bundle.path / name).read_bytes())
    stage = old.stages[0]
    manifest = old.model_copy(
        update={
            "stages": (stage, stage.model_copy(update={"name": "again"})),
            "artifacts": (artifact, artifact.model_copy(update={"stage": "again"})),
            "reference_sha256": sha256_of(folder / "reference.npz"),
        }
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return Bundle.open(folder)


def test_every_core_tells_its_own_part(tmp_path: Path) -> None:
    for name, core in CORES.items():
        core.write_files(tmp_path / name)
        text = (tmp_path / name / "proc/cpuinfo").read_text()
        assert f"CPU part\t: 0x{core.part:03x}\n" in text
        assert text.count("processor") == 1
    assert len({core.part for core in CORES.values()}) == len(CORES)

"""Whole packages of every kind that coremltools writes, against the PyTorch they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.models.utils import MultiFunctionDescriptor, save_multifunction
from numpy.typing import NDArray
from torch import Tensor, nn

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.mixed import run_mixed
from phoneward.runtime.engines.mil.numerics import Numerics
from phoneward.runtime.engines.mil.precision import precision_of
from phoneward.runtime.engines.mil.program import Program
from phoneward.runtime.engines.mil.session import MilSession
from phoneward.spec import TensorSpec
from tests.mil_packages import convert, quietly, trace

RNG = np.random.default_rng(5)
IMAGE = RNG.integers(0, 256, (1, 3, 32, 32)).astype(np.float32)
SMALL = (IMAGE / 255).astype(np.float32)
TENSOR = ct.TensorType(name="x", shape=IMAGE.shape)
EXACT = {"compute_precision": ct.precision.FLOAT32}


class Net(nn.Module):
    """A small convolutional classifier of 10 classes for images of any size."""

    def __init__(self, seed: int = 0, classes: int = 10) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
        )
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


def packaged(model: nn.Module, example: Any, path: Path, **options: Any) -> Path:
    convert(trace(model, example), **options).save(str(path))
    return path


def answer(model: nn.Module, *arrays: NDArray[Any]) -> NDArray[Any]:
    with torch.no_grad():
        return model(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)).numpy()


def only(answers: dict[str, Any]) -> NDArray[Any]:
    (value,) = answers.values()
    return np.asarray(value)


def close(got: NDArray[Any], expected: NDArray[Any], tolerance: float = 1e-5) -> None:
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * np.ptp(expected)


def test_functions_of_one_package(tmp_path: Path) -> None:
    nets = {"ten": Net(), "three": Net(classes=3)}
    description = MultiFunctionDescriptor()
    for name, net in nets.items():
        single = packaged(
            net,
            SMALL,
            tmp_path / f"{name}.mlpackage",
            inputs=[TENSOR],
            minimum_deployment_target=ct.target.iOS18,
            **EXACT,
        )
        description.add_function(str(single), src_function_name="main", target_function_name=name)
    description.default_function_name = "three"
    path = tmp_path / "both.mlpackage"
    quietly(lambda: save_multifunction(description, str(path)))

    assert Program.load(path).function == "three"
    for name, net in nets.items():
        close(only(Program.load(path, function=name)({"x": SMALL})), answer(net, SMALL))
    with pytest.raises(EngineError, match="no function 'main'; it has ten, three"):
        Program.load(path, function="main")


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
def test_images_are_whole_numbers_scaled_and_shifted(layout: str, tmp_path: Path) -> None:
    bias = [-1.0, -0.5, 0.25]
    kind = ct.ImageType(
        name="x",
        shape=IMAGE.shape,
        scale=1 / 127,
        bias=bias,
        color_layout=getattr(ct.colorlayout, layout),
    )
    net = Net()
    program = Program.load(packaged(net, SMALL, tmp_path / "a.mlpackage", inputs=[kind], **EXACT))
    order = slice(None, None, 1 if layout == "RGB" else -1)
    seen = IMAGE[:, order] / np.float32(127) + np.array(bias, np.float32).reshape(1, 3, 1, 1)
    close(only(program({"x": IMAGE})), answer(net, seen))
    # Core ML's images hold whole numbers of 8 bits
    uneven = np.where(IMAGE == 255, 300.0, IMAGE + 0.4).astype(np.float32)
    np.testing.assert_array_equal(only(program({"x": uneven})), only(program({"x": IMAGE})))


@pytest.mark.parametrize("layout", ["GRAYSCALE", "GRAYSCALE_FLOAT16"])
def test_grey_images(layout: str, tmp_path: Path) -> None:
    kind = ct.ImageType(
        name="x",
        shape=(1, 1, 32, 32),
        scale=0.5,
        color_layout=getattr(ct.colorlayout, layout),
    )
    net = nn.Conv2d(1, 2, 3)
    path = packaged(
        net,
        SMALL[:, :1],
        tmp_path / "a.mlpackage",
        inputs=[kind],
        minimum_deployment_target=ct.target.iOS17,
        **EXACT,
    )
    grey = IMAGE[:, :1] + np.float32(0.375)
    whole = layout == "GRAYSCALE"
    seen = (np.rint(grey) if whole else grey.astype(np.float16).astype(np.float32)) * 0.5
    close(only(Program.load(path)({"x": grey})), answer(net, seen.astype(np.float32)))


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
def test_image_outputs(layout: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(3, 3, 1)
    colours = getattr(ct.colorlayout, layout)
    program = Program.load(
        packaged(
            net,
            SMALL,
            tmp_path / "a.mlpackage",
            inputs=[ct.ImageType(name="x", shape=IMAGE.shape, color_layout=colours)],
            outputs=[ct.ImageType(name="y", color_layout=colours)],
            **EXACT,
        )
    )
    order = slice(None, None, 1 if layout == "RGB" else -1)
    close(program({"x": IMAGE})["y"], answer(net, IMAGE[:, order])[:, order])


RANGE = ct.Shape((1, 3, ct.RangeDim(16, 64, default=32), ct.RangeDim(16, 80, default=32)))
LIST = ct.EnumeratedShapes([(1, 3, 32, 32), (1, 3, 48, 64)])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ct.TensorType(name="x", shape=RANGE), r"shapes \(1..1, 3..3, 16..64, 16..80\)"),
        (ct.ImageType(name="x", shape=RANGE), r"shapes \(1..1, 3..3, 16..64, 16..80\)"),
        (ct.TensorType(name="x", shape=LIST), r"one of shapes \(1, 3, 32, 32\), \(1, 3, 48, 64\)"),
        (ct.ImageType(name="x", shape=LIST), r"one of shapes \(1, 3, 32, 32\), \(1, 3, 48, 64\)"),
    ],
    ids=["range", "image range", "list", "image list"],
)
def test_flexible_sizes(kind: Any, message: str, tmp_path: Path) -> None:
    net = Net()
    program = Program.load(packaged(net, SMALL, tmp_path / "a.mlpackage", inputs=[kind], **EXACT))
    for size in ((32, 32), (48, 64)):
        x = RNG.integers(0, 256, (1, 3, *size)).astype(np.float32)
        close(only(program({"x": x})), answer(net, x))
    for size in ((8, 32), (32, 96), (90, 90)):
        with pytest.raises(EngineError, match=message):
            program({"x": np.zeros((1, 3, *size), np.float32)})


def test_half_precision_in_and_out(tmp_path: Path) -> None:
    net = Net()
    path = packaged(
        net,
        SMALL,
        tmp_path / "a.mlpackage",
        inputs=[ct.TensorType(name="x", shape=IMAGE.shape, dtype=np.float16)],
        outputs=[ct.TensorType(name="y", dtype=np.float16)],
        minimum_deployment_target=ct.target.iOS16,
    )
    program = Program.load(path)
    declared = program({"x": SMALL.astype(np.float16)})["y"]
    assert declared.dtype == np.float16
    close(declared, answer(net, SMALL), 5e-3)
    exact = program({"x": SMALL}, Numerics.FLOAT32)["y"].astype(np.float32)
    close(exact, answer(net, SMALL), 1e-3)


def test_numbers_that_half_precision_has_not(tmp_path: Path) -> None:
    class Large(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 60000

    x = np.array([1, 2, -3], np.float32)
    program = Program.load(
        packaged(
            Large(),
            x,
            tmp_path / "a.mlpackage",
            inputs=[ct.TensorType(name="x", shape=x.shape, dtype=np.float16)],
            outputs=[ct.TensorType(name="y", dtype=np.float16)],
            minimum_deployment_target=ct.target.iOS16,
        )
    )
    exact = program({"x": x}, Numerics.FLOAT32)["y"]
    assert exact.dtype == np.float32
    assert exact.tolist() == [60000, 120000, -180000]
    huge = program({"x": np.array([1, 2, -1e60])})["y"]
    assert huge.dtype == np.float16
    assert huge.tolist() == [60000, np.inf, -np.inf]


def test_an_input_with_a_default_may_be_left_out(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, gain: Tensor) -> Tensor:
            return x * gain

    kinds = [
        TENSOR,
        ct.TensorType(name="gain", shape=(1,), default_value=np.array([3], np.float32)),
    ]
    gain = np.array([5], np.float32)
    program = Program.load(
        packaged(Scaled(), (SMALL, gain), tmp_path / "a.mlpackage", inputs=kinds, **EXACT)
    )
    np.testing.assert_allclose(only(program({"x": SMALL})), SMALL * 3, rtol=1e-6)
    np.testing.assert_allclose(only(program({"x": SMALL, "gain": gain})), SMALL * 5, rtol=1e-6)
    with pytest.raises(EngineError, match="takes .*; got gain"):
        program({"gain": gain})


def test_whole_numbers_in(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Embedding(30, 4)
    tokens = np.array([[3, 29, 0]], np.int32)
    kind = ct.TensorType(name="x", shape=(1, 3), dtype=np.int32)
    program = Program.load(packaged(net, tokens, tmp_path / "a.mlpackage", inputs=[kind], **EXACT))
    np.testing.assert_array_equal(only(program({"x": tokens})), answer(net, tokens))
    with pytest.raises(EngineError, match="'x' takes int32, got float64"):
        program({"x": tokens + 0.5})
    np.testing.assert_array_equal(
        only(program({"x": tokens.astype(np.int64)})), answer(net, tokens)
    )
    with pytest.raises(EngineError, match="'x' takes int32, got values from 3 to 4294967299"):
        program({"x": np.array([[3, 2**32 + 3, 5]])})
    with pytest.raises(EngineError, match="'x' is no array: "):
        program({"x": [[1], [2, 3]]})
    with pytest.raises(EngineError, match="takes x; got 3$"):
        program({3: tokens})


@pytest.mark.parametrize("labels", [[f"class {i}" for i in range(10)], list(range(10, 20))])
def test_a_classifier(labels: list[Any], tmp_path: Path) -> None:
    net = Net()
    path = packaged(
        net,
        SMALL,
        tmp_path / "a.mlpackage",
        inputs=[TENSOR],
        classifier_config=ct.ClassifierConfig(labels, "what"),
        **EXACT,
    )
    scores = answer(net, SMALL)[0]
    answers = Program.load(path)({"x": SMALL})
    assert answers["what"] == labels[int(scores.argmax())]
    assert list(answers["what_probs"]) == labels
    close(np.array(list(answers["what_probs"].values())), scores)
    image = TensorSpec(name="x", shape=SMALL.shape, dtype="float32")
    with pytest.raises(EngineError, match=r"outputs \['what'\] are labels or scores, no tensors"):
        MilSession(path, [image], [TensorSpec(name="what", shape=(1,), dtype="float32")], 1)


class Window(nn.Module):
    """Attention over the last 6 keys and values, which are buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(1, 6, 4))
        self.register_buffer("values", torch.zeros(1, 6, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.keys[:] = torch.cat([self.keys[:, 1:], x], 1)
        self.values[:] = torch.cat([self.values[:, 1:], x * 2], 1)
        return (x @ self.keys.transpose(1, 2)).softmax(-1) @ self.values


def test_states_live_from_call_to_call_until_they_are_reset(tmp_path: Path) -> None:
    kind = ct.TensorType(shape=(1, 6, 4), dtype=np.float16)
    path = packaged(
        Window().eval(),
        np.zeros((1, 1, 4), np.float32),
        tmp_path / "a.mlpackage",
        inputs=[ct.TensorType(name="x", shape=(1, 1, 4))],
        states=[ct.StateType(wrapped_type=kind, name=name) for name in ("keys", "values")],
        minimum_deployment_target=ct.target.iOS18,
    )
    program, other = Program.load(path), Program.load(path)
    for _ in range(2):
        net = Window()
        for step in range(8):
            x = RNG.normal(size=(1, 1, 4)).astype(np.float32)
            close(only(program({"x": x})), answer(net, x), 5e-3)
            np.testing.assert_allclose(
                program.states["keys"].value.numpy(), net.keys.numpy(), atol=2e-3
            )
            assert bool(program.states["values"].value[:, 0].any()) == (step >= 5)
        program.reset()
    assert not other.states["keys"].value.any()

    first, again = only(program({"x": x})), {"x": x + 1}
    kept = program.states["keys"].value.clone()
    np.testing.assert_array_equal(only(run_mixed(program, {"x": x}, ())), first)
    program.fresh()(again)
    precision_of(program, [again])
    assert torch.equal(program.states["keys"].value, kept)

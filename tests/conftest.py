"""Small real artifacts that several test files run, made once a session.

`samples` is one network in every format that this machine can run. It has two inputs and three
outputs, two of one shape and none in alphabetical order, so that a swap of names, of order or of
axes changes the numbers. `bundle` is a small classifier's whole bundle.
"""

from __future__ import annotations

import fcntl
import gc
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from phoneward.bundle import (
    MANIFEST,
    Artifact,
    Bundle,
    Manifest,
    Parity,
    Stage,
    Weights,
    sha256_of,
    size_of,
)
from phoneward.names import ParityStatus, Precision
from phoneward.runtime.images import load_image, prepare
from phoneward.spec import ImageSpec, TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.ssh_board import Board

    Arrays = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither take from the user's cache nor fill it; child processes inherit this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHONEWARD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


# a converter's graph is a million small objects that live long: to look for garbage among them took
# 6.4 s of an export of 103 s, and takes 2.2 so
gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Let the tests, and the processes that they start, compute in one thread.

    Small operations of processes that share the cores would wait for each other's threads ten times
    as long as they take. What is to run in more says so itself.
    """
    import torch

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


ROOT = Path(__file__).parent.parent
CLASSES = 10
INPUTS = (
    TensorSpec(name="image", shape=(1, 3, 32, 32), layout="NCHW"),
    TensorSpec(name="bias", shape=(1, CLASSES), layout="NC"),
)
OUTPUTS = (
    TensorSpec(name="zz_logits", shape=(1, CLASSES), layout="NC"),
    TensorSpec(name="aa_plain", shape=(1, CLASSES), layout="NC"),
    TensorSpec(name="map", shape=(1, 8, 16, 16), layout="NCHW"),
)
STAGE = Stage(
    name="classify",
    inputs=(INPUTS[0],),
    outputs=(TensorSpec(name="logits", shape=(1, CLASSES), layout="NC"),),
    image=ImageSpec(height=32, width=32, crop_fraction=0.875),
)
CHANNELS_LAST = TensorSpec(name="image", shape=(1, 32, 32, 3), layout="NHWC")
SUFFIXES = {"tflite": ".tflite", "executorch": ".pte", "onnx": ".onnx", "coreml": ".mlpackage"}


@dataclass(frozen=True)
class Sample:
    """One artifact with its tensors in order, example inputs and PyTorch's answers."""

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tensors: Arrays
    expected: Arrays


def lower(format_name: str, model: Any, stage: Stage, path: Path) -> None:
    """Convert a module whose inputs and outputs are those of `stage`."""
    import torch

    from phoneward.quiet import noise_to

    example = tuple(torch.rand(spec.shape) for spec in stage.inputs)
    with noise_to(path.with_suffix(".log")):
        _CONVERTERS[format_name](model, example, stage, path)


def _to_tflite(model: Any, example: tuple[Any, ...], stage: Stage, path: Path) -> None:
    import litert_torch

    litert_torch.convert(model, example).export(str(path))


def _to_executorch(model: Any, example: tuple[Any, ...], stage: Stage, path: Path) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(
        torch.export.export(model, example), partitioner=[XnnpackPartitioner()]
    )
    path.write_bytes(edge.to_executorch().buffer)


def _to_onnx(model: Any, example: tuple[Any, ...], stage: Stage, path: Path) -> None:
    import torch

    program = torch.onnx.export(
        model,
        example,
        input_names=[spec.name for spec in stage.inputs],
        output_names=[spec.name for spec in stage.outputs],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    path.write_bytes(program.model_proto.SerializeToString())


def _to_coreml(model: Any, example: tuple[Any, ...], stage: Stage, path: Path) -> None:
    import coremltools as ct
    import torch

    program = torch.export.export(model, example).run_decompositions({})
    ct.convert(
        program,
        inputs=[ct.TensorType(name=spec.name, shape=spec.shape) for spec in stage.inputs],
        outputs=[ct.TensorType(name=spec.name) for spec in stage.outputs],
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    ).save(str(path))


_CONVERTERS = {
    "tflite": _to_tflite,
    "executorch": _to_executorch,
    "onnx": _to_onnx,
    "coreml": _to_coreml,
}


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    """The network of two inputs in every format that this machine can run, by format."""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.head = nn.Linear(8, CLASSES)

        def forward(self, image: Any, bias: Any) -> Any:
            features = self.conv(image).relu()
            plain = self.head(features.mean((2, 3)))
            return plain + bias, plain, features

    torch.manual_seed(0)
    model, example = Network().eval(), [torch.rand(spec.shape) for spec in INPUTS]
    with torch.no_grad():
        answers = model(*example)
    folder = tmp_path_factory.mktemp("samples")
    made = {}
    for name, suffix in SUFFIXES.items():
        path = folder / f"network{suffix}"
        lower(name, model, Stage(name="network", inputs=INPUTS, outputs=OUTPUTS), path)
        made[name] = Sample(path, INPUTS, OUTPUTS, named(INPUTS, example), named(OUTPUTS, answers))
    return made


def named(specs: Sequence[TensorSpec], tensors: Iterable[Any]) -> Arrays:
    return {spec.name: tensor.numpy() for spec, tensor in zip(specs, tensors, strict=True)}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small classifier as TFLite (channels last), ExecuTorch, ONNX, and what no one here runs."""
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(folder)
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def board_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A real SSH server that a module's tests share."""
    from tests.ssh_board import sshd

    with sshd(tmp_path_factory.mktemp("board")) as board:
        yield board


@pytest.fixture
def board(board_server: Board, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """A board that this test's user knows; it has to be left as it was."""
    from tests.ssh_board import user_of

    user_of(board_server, monkeypatch)
    yield board_server
    board_server.wait_until_clean()


@pytest.fixture
def unread(tmp_path: Path) -> Bundle:
    """A bundle whose artifacts no engine ever opens."""
    from tests.ssh_board import unread_bundle

    return unread_bundle(tmp_path / "unread")


@pytest.fixture(scope="session")
def tam_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An exported tracker: random weights, a bank of two frames, ONNX. Not to be written to.

    It takes a minute and more to make, so that the processes that share the tests share it too.
    """
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    folder = tmp_path_factory.mktemp("tam") if alone else tmp_path_factory.getbasetemp().parent
    with (folder / "tam.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "tam").exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PHONEWARD_CACHE", str(folder / "tam-cache"))
                _export_tracker(folder / "tam")
    return Bundle.open(folder / "tam")


@pytest.fixture
def tam_cache(tam_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache that the tracker's export filled, in whichever process; this test's own."""
    folder = tam_bundle.path.with_name("tam-cache")
    monkeypatch.setenv("PHONEWARD_CACHE", str(folder))
    return folder


def _export_tracker(folder: Path) -> None:
    from phoneward.export.models.family import Knobs
    from phoneward.export.pipeline import export_bundle
    from phoneward.export.request import make_request

    knobs = Knobs(memory_slots=2)
    request = make_request("efficienttam_nano", "random", (), ["onnx"], (), knobs)
    export_bundle(request, folder)


def write_bundle(folder: Path) -> None:
    import torch

    torch.manual_seed(0)
    model = _classifier()
    images, real = _reference_images()
    with torch.no_grad():
        answers = [model(torch.from_numpy(image.astype(np.float32))).numpy() for image in images]
    np.savez(
        folder / "reference.npz",
        **{
            "classify/input/image": images,
            "classify/output/logits": np.stack(answers),
            "classify/real": real,
        },
    )
    (folder / "labels.txt").write_text("".join(f"thing {i}\n" for i in range(CLASSES)))
    artifacts = []
    for name, suffix in SUFFIXES.items():
        path = folder / f"classify{suffix}"
        last = name == "tflite"
        stage = STAGE.model_copy(update={"inputs": (CHANNELS_LAST,)}) if last else STAGE
        lower(name, _channels_last(model) if last else model, stage, path)
        artifacts.append(artifact(path, name, stage))
    unknown = folder / "classify.none"
    unknown.write_bytes(b"nothing here reads this")
    artifacts.append(artifact(unknown, "none", STAGE))
    write_manifest(folder, artifacts)


def artifact(path: Path, format_name: str, stage: Stage) -> Artifact:
    return Artifact(
        stage="classify",
        format=format_name,
        precision=Precision.FP32,
        path=path.name,
        bytes=size_of(path),
        sha256=sha256_of(path),
        inputs=stage.inputs,
        outputs=stage.outputs,
        parity=Parity(status=ParityStatus.NOT_EXECUTED, reason="not measured yet"),
    )


def write_manifest(folder: Path, artifacts: Sequence[Artifact]) -> None:
    manifest = Manifest(
        model="tiny",
        family="tests",
        weights=Weights(kind="random", source="seed 0", seed=0),
        devices=(),
        stages=(STAGE,),
        artifacts=tuple(artifacts),
        labels="labels.txt",
        labels_sha256=sha256_of(folder / "labels.txt"),
        reference="reference.npz",
        reference_sha256=sha256_of(folder / "reference.npz"),
        tools={},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())


def _classifier() -> Any:
    from torch import nn

    class Normalise(nn.Module):
        def forward(self, image: Any) -> Any:
            return (image - 127.5) / 60

    return nn.Sequential(
        Normalise(),
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.Hardswish(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    ).eval()


def _channels_last(model: Any) -> Any:
    from torch import nn

    class ChannelsLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: Any) -> Any:
            return self.model(image.permute(0, 3, 1, 2))

    return ChannelsLast().eval()


def _reference_images() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    photos = sorted((ROOT / "export" / "photos").glob("*.jpg"))
    assert STAGE.image is not None
    real = [prepare(load_image(path), STAGE.image, INPUTS[0]).astype(np.uint8) for path in photos]
    noise = np.random.default_rng(0).integers(0, 256, (2, 1, 3, 32, 32), np.uint8)
    images = np.concatenate([np.stack(real), noise])
    return images, np.arange(len(images)) < len(real)

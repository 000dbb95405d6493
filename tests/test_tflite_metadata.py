"""TFLite metadata: readable where the format says, weights aligned, numbers untouched."""

from __future__ import annotations

import io
import zipfile

import flatbuffers
import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types
from flatbuffers.table import Table

from phoneward.export.backends import About
from phoneward.export.backends.tflite_metadata import with_metadata
from phoneward.spec import ImageSpec, TensorSpec

ABOUT = About("tiny", "a description", "apache-2.0", "1.2", ("cat", "dog"))
IMAGE = TensorSpec(name="image", shape=(1, 8, 6, 3), layout="NHWC")
RGB = ImageSpec(height=8, width=6)
LOGITS = TensorSpec(name="logits", shape=(1, 2), layout="NC")


class Tiny(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(3, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(image.mean((1, 2)))


@pytest.fixture(scope="module")
def plain() -> bytes:
    import litert_torch

    content: bytes = litert_torch.convert(Tiny().eval(), (torch.zeros(1, 8, 6, 3),)).model_content()
    return content


@pytest.fixture(scope="module")
def described(plain: bytes) -> bytes:
    return with_metadata(plain, ABOUT, [IMAGE], [LOGITS], RGB)


class Reader:
    """A table of the metadata flatbuffer by field number, with no generated code."""

    def __init__(self, content: bytes, position: int) -> None:
        self.table = Table(bytearray(content), position)

    def _at(self, slot: int) -> int:
        offset = self.table.Offset(4 + 2 * slot)
        assert offset, f"field {slot} is absent"
        return offset

    def has(self, slot: int) -> bool:
        return self.table.Offset(4 + 2 * slot) != 0

    def text(self, slot: int) -> str:
        return self.table.String(self._at(slot) + self.table.Pos).decode()

    def byte(self, slot: int) -> int:
        return self.table.Get(number_types.Int8Flags, self._at(slot) + self.table.Pos)

    def uint(self, slot: int) -> int:
        return self.table.Get(number_types.Uint32Flags, self._at(slot) + self.table.Pos)

    def child(self, slot: int) -> Reader:
        position = self.table.Indirect(self._at(slot) + self.table.Pos)
        return Reader(bytes(self.table.Bytes), position)

    def children(self, slot: int) -> list[Reader]:
        start, count = self.table.Vector(self._at(slot)), self.table.VectorLen(self._at(slot))
        positions = [self.table.Indirect(start + 4 * i) for i in range(count)]
        return [Reader(bytes(self.table.Bytes), position) for position in positions]


def metadata_of(content: bytes) -> Reader:
    model = schema.Model.GetRootAs(content)
    entries = {model.Metadata(i).Name(): model.Metadata(i) for i in range(model.MetadataLength())}
    buffer = model.Buffers(entries[b"TFLITE_METADATA"].Buffer()).DataAsNumpy().tobytes()
    assert buffer[4:8] == b"M001"
    root = flatbuffers.encode.Get(flatbuffers.packer.uoffset, buffer, 0)
    return Reader(buffer, root)


def test_the_tables_say_what_the_model_is(described: bytes) -> None:
    model = metadata_of(described)
    assert [model.text(slot) for slot in (0, 1, 2, 5)] == [
        "tiny",
        "a description",
        "1.2",
        "apache-2.0",
    ]
    (subgraph,) = model.children(3)
    (image,), (logits,) = subgraph.children(2), subgraph.children(3)
    assert (image.text(0), logits.text(0)) == ("image", "logits")
    content = image.child(3)
    assert content.byte(0) == 2, "image properties"
    properties = content.child(1)
    assert properties.byte(0) == 1, "RGB"
    size = properties.child(1)
    assert (size.uint(0), size.uint(1)) == (6, 8), "width, height"
    (labels,) = logits.children(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)


class Autoencoder(torch.nn.Module):
    """Grey images to features, logits and grey images again."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = torch.nn.Conv2d(1, 5, 3, stride=2), torch.nn.Linear(5, 2)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.conv(image.permute(0, 3, 1, 2))
        return features.permute(0, 2, 3, 1), self.head(features.mean((2, 3))), 255 - image


def test_grey_images_features_and_labels_are_told_apart() -> None:
    import litert_torch

    inputs = [TensorSpec(name="image", shape=(1, 8, 6, 1), layout="NHWC")]
    outputs = [
        TensorSpec(name="features", shape=(1, 3, 2, 5), layout="NHWC"),
        LOGITS,
        TensorSpec(name="converted", shape=(1, 8, 6, 1), layout="NHWC"),
    ]
    content = litert_torch.convert(Autoencoder().eval(), (torch.zeros(1, 8, 6, 1),)).model_content()
    grey = RGB.model_copy(update={"channel_order": "GRAY"})
    (subgraph,) = metadata_of(with_metadata(content, ABOUT, inputs, outputs, grey)).children(3)
    (image,), (features, logits, converted) = subgraph.children(2), subgraph.children(3)
    for tensor in (image, converted):
        assert tensor.child(3).byte(0) == 2, "image properties"
        assert tensor.child(3).child(1).byte(0) == 2, "GRAYSCALE"
        assert tensor.has(4), "normalisation"
    for tensor in (features, logits):
        assert tensor.child(3).byte(0) == 1, "feature properties"
        assert not tensor.has(4)
    assert [tensor.has(6) for tensor in (features, logits, converted)] == [False, True, False]


def test_labels_are_an_archive_behind_the_model(described: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(described)) as archive:
        assert archive.read("labels.txt").decode().splitlines() == ["cat", "dog"]


def test_the_signature_has_our_names_and_the_numbers_are_untouched(
    plain: bytes, described: bytes
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    x = np.random.default_rng(0).random((1, 8, 6, 3), np.float32)
    before = Interpreter(model_content=plain).get_signature_runner()(args_0=x)["output_0"]
    after = Interpreter(model_content=described).get_signature_runner()(image=x)["logits"]
    np.testing.assert_array_equal(before, after)


def test_every_buffer_starts_at_a_multiple_of_sixteen(described: bytes) -> None:
    model = schema.Model.GetRootAs(described)
    start = np.frombuffer(described, np.uint8).ctypes.data
    arrays = [model.Buffers(i).DataAsNumpy() for i in range(model.BuffersLength())]
    filled = [a for a in arrays if isinstance(a, np.ndarray) and a.size]
    assert len(filled) >= 3
    assert all((a.ctypes.data - start) % 16 == 0 for a in filled)

"""TFLite Metadata: what a .tflite says of its tensors to Android Studio and the Task Library.

The tables and field numbers are those of TFLite's metadata_schema.fbs (file identifier M001);
associated files are a ZIP archive behind the flatbuffer, as that format prescribes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.spec import logits_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.export.backends import About
    from phoneward.spec import ImageSpec, TensorSpec

_LABELS = "labels.txt"
_BUFFER_NAME = b"TFLITE_METADATA"
_COLOR_SPACES = {"RGB": 1, "GRAY": 2}
_TENSOR_AXIS_LABELS = 2
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2
_NORMALIZATION_OPTIONS = 1
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def with_metadata(
    content: bytes,
    about: About,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    image: ImageSpec | None,
) -> bytes:
    """Return the model `content` with metadata, and `labels.txt` if `about` has labels.

    Tensors that fit `image` are described as images of its color space, and labels belong to the
    logits.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content)
    _name_signature(model, inputs, outputs)
    entry = schema.MetadataT()
    entry.name = _BUFFER_NAME
    entry.buffer = len(model.buffers)
    metadata = np.frombuffer(_metadata(about, inputs, outputs, image), np.uint8)
    model.buffers = [_AlignedBuffer(_data(buffer, content)) for buffer in model.buffers]
    model.buffers.append(_AlignedBuffer(metadata))
    model.metadata = [*(model.metadata or []), entry]
    model.description = about.title.encode()
    builder = flatbuffers.Builder(len(content) + 65536)
    builder.Finish(model.Pack(builder), b"TFL3")
    packed = bytes(builder.Output())
    return packed + _archive(about.labels) if about.labels else packed


def _name_signature(
    model: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> None:
    # litert-torch numbers the tensors (args_0, output_0); hosts look them up by our names
    (signature,) = model.signatureDefs
    for maps, specs in ((signature.inputs, inputs), (signature.outputs, outputs)):
        numbered = sorted(maps, key=lambda m: int(m.name.decode().rpartition("_")[2]))
        for tensor_map, spec in zip(numbered, specs, strict=True):
            tensor_map.name = spec.name.encode()


def _data(buffer: Any, content: bytes) -> NDArray[np.uint8] | None:
    # a buffer lies inside the flatbuffer, or behind it where converters put large ones
    if buffer.offset > 1:
        return np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
    return None if buffer.data is None else np.asarray(buffer.data, np.uint8)


class _AlignedBuffer:
    """A tflite.Buffer whose data starts at a multiple of 16, which the generated code forgets."""

    def __init__(self, data: NDArray[np.uint8] | None) -> None:
        self.data = data

    def Pack(self, builder: Any) -> int:  # noqa: N802 (the name that generated tables call)
        vector = None
        if self.data is not None and len(self.data):
            size = len(self.data)
            builder.StartVector(1, size, 16)
            builder.head = builder.Head() - size
            builder.Bytes[builder.Head() : builder.Head() + size] = self.data.tobytes()
            vector = builder.EndVector()
        builder.StartObject(3)
        if vector is not None:
            builder.PrependUOffsetTRelativeSlot(0, vector, 0)
        return int(builder.EndObject())


def _archive(labels: Sequence[str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo(_LABELS, _ZIP_TIME), "\n".join(labels) + "\n")
    return stream.getvalue()


def _metadata(
    about: About,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    image: ImageSpec | None,
) -> bytes:
    import flatbuffers

    tables = _Tables(flatbuffers.Builder(1024))
    labelled = logits_in(outputs) if about.labels else None
    subgraph = tables.table(
        {
            2: tables.vector([_tensor(tables, spec, image, None) for spec in inputs]),
            3: tables.vector([_tensor(tables, spec, image, labelled) for spec in outputs]),
        },
        fields=10,
    )
    root = tables.table(
        {
            0: tables.string(about.title),
            1: tables.string(about.description),
            2: tables.string(about.version),
            3: tables.vector([subgraph]),
            5: tables.string(about.licence),
            7: tables.string("1.0.0"),
        },
        fields=8,
    )
    tables.builder.Finish(root, b"M001")
    return bytes(tables.builder.Output())


def _tensor(
    tables: _Tables, spec: TensorSpec, image: ImageSpec | None, labelled: TensorSpec | None
) -> int:
    image = image if image is not None and image.fits(spec) else None
    values: dict[int, int | Callable[[int], None]] = {
        0: tables.string(spec.name),
        1: tables.string(f"{spec.dtype} {spec.layout or ''} {spec.shape}"),
        3: _content(tables, spec, image),
    }
    if image is not None:
        # mean 0 and standard deviation 1: the graph normalises, a host passes 0 to 255
        values[4] = tables.vector([_identity_normalisation(tables)])
    if spec is labelled:
        file = tables.table(
            {0: tables.string(_LABELS), 2: tables.byte(_TENSOR_AXIS_LABELS)}, fields=5
        )
        values[6] = tables.vector([file])
    return tables.table(values, fields=7)


def _content(tables: _Tables, spec: TensorSpec, image: ImageSpec | None) -> int:
    if image is not None:
        size = tables.table({0: tables.uint(image.width), 1: tables.uint(image.height)}, 2)
        color_space = tables.byte(_COLOR_SPACES[image.channel_order])
        properties = tables.table({0: color_space, 1: size}, fields=2)
        kind = _IMAGE_PROPERTIES
    else:
        properties, kind = tables.table({}, fields=0), _FEATURE_PROPERTIES
    return tables.table({0: tables.byte(kind), 1: properties}, fields=3)


def _identity_normalisation(tables: _Tables) -> int:
    options = tables.table({0: tables.floats([0.0]), 1: tables.floats([1.0])}, fields=2)
    return tables.table({0: tables.byte(_NORMALIZATION_OPTIONS), 1: options}, fields=2)


class _Tables:
    """Just enough of a flatbuffers writer: a table is its field numbers and their values."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def string(self, text: str) -> int:
        return int(self.builder.CreateString(text))

    def byte(self, value: int) -> Callable[[int], None]:
        return lambda slot: self.builder.PrependInt8Slot(slot, value, 0)

    def uint(self, value: int) -> Callable[[int], None]:
        return lambda slot: self.builder.PrependUint32Slot(slot, value, 0)

    def floats(self, values: Sequence[float]) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependFloat32(value)
        return int(self.builder.EndVector())

    def vector(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def table(self, values: Mapping[int, int | Callable[[int], None]], fields: int) -> int:
        self.builder.StartObject(fields)
        for slot, value in values.items():
            if callable(value):
                value(slot)
            else:
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        return int(self.builder.EndObject())

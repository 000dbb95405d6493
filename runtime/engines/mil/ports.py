"""The interface of a program: its inputs and outputs, and arrays carried in and out of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.numerics import rounded
from phoneward.runtime.engines.mil.signature import tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.runtime.engines.mil.package import Package
    from phoneward.runtime.engines.mil.plan import Plan

_COLOURS = 3
_WHITE = 255
_HALF_IMAGE = "GRAYSCALE_FLOAT16"
_DTYPES = {
    "FLOAT16": "float16",
    "FLOAT32": "float32",
    "DOUBLE": "float64",
    "INT32": "int32",
    "INT8": "int8",
}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Port:
    """An input or output as Core ML describes it.

    `dtype` is numpy's name, None for labels and dictionaries; `image` the colour layout (RGB,
    BGR, GRAYSCALE, GRAYSCALE_FLOAT16) of an image. `shape` is empty where it is not fixed: then
    it is one of `choices`, or within `ranges` (lowest and highest size, None without end) axis
    by axis. `default` fills an input that is left out.
    """

    name: str
    shape: Shape = ()
    dtype: str | None = None
    image: str | None = None
    choices: tuple[Shape, ...] = ()
    ranges: tuple[tuple[int, int | None], ...] = ()
    default: float | None = None

    def takes(self, shape: Shape) -> bool:
        """Whether an array of this shape fits."""
        if self.choices:
            return shape in self.choices
        if self.ranges:
            return len(shape) == len(self.ranges) and all(
                low <= size and (high is None or size <= high)
                for size, (low, high) in zip(shape, self.ranges, strict=True)
            )
        return not self.shape or shape == self.shape

    @property
    def sizes(self) -> str:
        """The shapes that fit, for a message."""
        if self.choices:
            return f"one of shapes {', '.join(str(choice) for choice in self.choices)}"
        if self.ranges:
            parts = (f"{low}..{'' if high is None else high}" for low, high in self.ranges)
            return f"shapes ({', '.join(parts)})"
        return f"shape {self.shape}"


def ports(package: Package, function: str) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Return the inputs and outputs of a function; states are neither.

    Raises:
        EngineError: the description has a type that is not known here.
    """
    description = package.spec.description
    for candidate in description.functions:
        if candidate.name == function:
            description = candidate
    inputs = tuple(_port(feature) for feature in description.input)
    return inputs, tuple(_port(feature) for feature in description.output)


def check_ports(inputs: Sequence[Port], outputs: Sequence[Port], plan: Plan) -> None:
    """Hold the description of an interface against the function that it describes.

    Raises:
        EngineError: names differ, or fixed shapes.
    """
    for kind, described, made in (
        ("inputs", inputs, [var for var in plan.inputs if not var.state]),
        ("outputs", outputs, plan.outputs),
    ):
        names, known = [port.name for port in described], {var.name: var for var in made}
        if sorted(names) != sorted(known):
            raise EngineError(
                f"describes {kind} {_listed(names)} where its function has {_listed(known)}"
            )
        for port in described:
            sizes = known[port.name].shape
            if port.shape and sizes and not _fits(port.shape, sizes):
                raise EngineError(
                    f"describes '{port.name}' as {port.shape} where its function has {sizes}"
                )


def to_carried(inputs: Sequence[Port], arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Check arrays against the interface and carry them in; images become whole numbers.

    Raises:
        EngineError: an array is missing, unknown, of another shape, or has numbers that its type
            has not.
    """
    names = {port.name for port in inputs}
    needed = {port.name for port in inputs if port.default is None}
    if not needed <= set(arrays) <= names:
        raise EngineError(f"takes {_listed(names)}; got {_listed(arrays)}")
    return {port.name: _carry(port, _given(port, arrays)) for port in inputs}


def in_float(outputs: Iterable[Port]) -> tuple[Port, ...]:
    """The same outputs, with float32 in place of float16."""
    return tuple(
        replace(port, dtype="float32") if port.dtype == "float16" else port for port in outputs
    )


def from_carried(outputs: Sequence[Port], values: Mapping[str, Any]) -> dict[str, Any]:
    """Carry results out: arrays of the described dtypes, which are the caller's own.

    An image is float32 in the order RGB, before Core ML makes its pixels 8-bit numbers: how that
    rounds is not documented.
    """
    return {port.name: _deliver(port, values[port.name]) for port in outputs}


def _given(port: Port, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    if port.name in arrays:
        try:
            return np.asarray(arrays[port.name])
        except (ValueError, TypeError, RuntimeError) as error:
            raise EngineError(f"input '{port.name}' is no array: {error}") from error
    return np.full(port.shape, port.default, port.dtype)


def _carry(port: Port, array: NDArray[Any]) -> Tensor:
    if not port.takes(array.shape):
        raise EngineError(f"input '{port.name}' takes {port.sizes}, got {array.shape}")
    if array.dtype.kind not in "fiub":
        raise EngineError(f"input '{port.name}' takes numbers, got {array.dtype}")
    if port.image is not None:
        return _pixels(port, array)
    whole = port.dtype is not None and np.dtype(port.dtype).kind == "i"
    if whole and array.dtype.kind == "f":
        raise EngineError(f"input '{port.name}' takes {port.dtype}, got {array.dtype}")
    if whole and array.size:
        ends, limits = (array.min(), array.max()), np.iinfo(str(port.dtype))
        if ends[0] < limits.min or ends[1] > limits.max:
            raise EngineError(
                f"input '{port.name}' takes {port.dtype}, got values from {ends[0]} to {ends[1]}"
            )
    return tensor(array if whole else _floats(array, np.float32))


def _floats(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """A copy of another width: numbers that are too large for it are infinite, as in Core ML."""
    with np.errstate(over="ignore"):
        return np.array(array, dtype)


def _pixels(port: Port, array: NDArray[Any]) -> Tensor:
    if port.image == _HALF_IMAGE:
        return rounded(tensor(_floats(array, np.float32)))
    pixels = np.clip(np.rint(array), 0, _WHITE).astype(np.float32)
    return tensor(pixels[:, ::-1].copy() if port.image == "BGR" else pixels)


def _deliver(port: Port, value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    array = value.numpy()
    if port.image == "BGR":
        array = array[:, ::-1]
    return _floats(array, port.dtype or array.dtype)


def _port(feature: Any) -> Port:
    kind = feature.type.WhichOneof("Type")
    if kind == "imageType":
        return _image(feature.name, feature.type.imageType)
    if kind == "multiArrayType":
        return _array(feature.name, feature.type)
    return Port(feature.name)


def _image(name: str, image: Any) -> Port:
    layout = _named(name, image.ColorSpace, image.colorSpace)
    channels = _COLOURS if layout in ("RGB", "BGR") else 1
    kind = image.WhichOneof("SizeFlexibility")
    if kind == "enumeratedSizes":
        sizes = image.enumeratedSizes.sizes
        choices = tuple((1, channels, int(size.height), int(size.width)) for size in sizes)
        return Port(name, (), "float32", layout, choices)
    if kind == "imageSizeRange":
        free = image.imageSizeRange
        ends = (_range(free.heightRange), _range(free.widthRange))
        return Port(name, (), "float32", layout, (), ((1, 1), (channels, channels), *ends))
    return Port(name, (1, channels, int(image.height), int(image.width)), "float32", layout)


def _array(name: str, feature: Any) -> Port:
    array = feature.multiArrayType
    dtype = _DTYPES.get(_named(name, array.ArrayDataType, array.dataType))
    if dtype is None:
        raise EngineError(f"describes '{name}' without its element type")
    shape = tuple(array.shape)
    kind = array.WhichOneof("ShapeFlexibility")
    if kind == "enumeratedShapes":
        choices = tuple(tuple(choice.shape) for choice in array.enumeratedShapes.shapes)
        return Port(name, (), dtype, None, choices)
    if kind == "shapeRange":
        ranges = tuple(_range(one) for one in array.shapeRange.sizeRanges)
        return Port(name, (), dtype, None, (), ranges)
    field = array.WhichOneof("defaultOptionalValue")
    default = getattr(array, field) if feature.isOptional and field else None
    return Port(name, shape, dtype, default=default)


def _range(ends: Any) -> tuple[int, int | None]:
    # below zero: without end
    return int(ends.lowerBound), int(ends.upperBound) if ends.upperBound >= 0 else None


def _named(name: str, enum: Any, value: int) -> str:
    if value not in enum.values():
        raise EngineError(f"describes '{name}' with a type {value} that is not known")
    return str(enum.Name(value))


def _fits(shape: Shape, sizes: Sequence[int | None]) -> bool:
    return len(shape) == len(sizes) and all(
        size is None or size == got for got, size in zip(shape, sizes, strict=True)
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(str, names)) or "none"

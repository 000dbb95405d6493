"""The interface of a program: its inputs and outputs, and arrays carried in and out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.signature import tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.runtime.engines.mil.package import Package

_COLOURS = 3
_WHITE = 255


@dataclass(frozen=True)
class Port:
    """An input or output as Core ML describes it.

    `dtype` is numpy's name, None for labels and dictionaries; `image` the colour layout (RGB,
    BGR, GRAYSCALE, ...) of an image; `shape` is empty where it is not fixed.
    """

    name: str
    shape: tuple[int, ...] = ()
    dtype: str | None = None
    image: str | None = None


def ports(package: Package, function: str) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Return the inputs and outputs of a function; states are neither."""
    description = package.spec.description
    for candidate in description.functions:
        if candidate.name == function:
            description = candidate
    inputs = tuple(_port(feature) for feature in description.input)
    return inputs, tuple(_port(feature) for feature in description.output)


def to_carried(inputs: Sequence[Port], arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Check arrays against the interface and carry them in; images become whole numbers.

    Raises:
        EngineError: an array is missing, unknown or of another shape.
    """
    names = [port.name for port in inputs]
    if set(names) != set(arrays):
        raise EngineError(f"takes {', '.join(names)}; got {', '.join(arrays)}")
    return {port.name: _carry(port, np.asarray(arrays[port.name])) for port in inputs}


def from_carried(outputs: Sequence[Port], values: Mapping[str, Any]) -> dict[str, Any]:
    """Carry results out: arrays of the described dtypes, which are the caller's own."""
    return {port.name: _deliver(port, values[port.name]) for port in outputs}


def _carry(port: Port, array: NDArray[Any]) -> Tensor:
    if port.shape and array.shape != port.shape:
        raise EngineError(f"input '{port.name}' takes shape {port.shape}, got {array.shape}")
    if port.image is None:
        return tensor(array)
    pixels = np.clip(np.rint(array), 0, _WHITE).astype(np.float32)
    return tensor(pixels[:, ::-1].copy() if port.image == "BGR" else pixels)


def _deliver(port: Port, value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    array = value.numpy()
    if port.image == "BGR":
        array = array[:, ::-1]
    return np.array(array, port.dtype or array.dtype)


def _port(feature: Any) -> Port:
    kind = feature.type.WhichOneof("Type")
    if kind == "imageType":
        image = feature.type.imageType
        layout = image.ColorSpace.Name(image.colorSpace)
        channels = _COLOURS if layout in ("RGB", "BGR") else 1
        flexible = image.WhichOneof("SizeFlexibility") is not None
        shape = () if flexible else (1, channels, image.height, image.width)
        return Port(feature.name, shape, "float32", layout)
    if kind == "multiArrayType":
        array = feature.type.multiArrayType
        flexible = array.WhichOneof("ShapeFlexibility") is not None
        return Port(feature.name, () if flexible else tuple(array.shape), _dtype(array))
    return Port(feature.name)


def _dtype(array: Any) -> str:
    name = array.ArrayDataType.Name(array.dataType)
    return str(name).lower().replace("double", "float64")

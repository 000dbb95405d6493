"""Frozen, checked descriptions of tensors and of the image a model expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from phoneward.errors import TensorMismatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

DType = Literal["float32", "float16", "int32", "int8", "uint8", "bool"]
Layout = Literal["NCHW", "NHWC", "NC", "NLC", "C", "scalar"]
Positive = Annotated[int, Field(gt=0)]


class Spec(BaseModel):
    """Base of all values that cross a wall: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Quantization(Spec):
    """Affine quantization of a whole tensor: real = scale * (stored - zero_point)."""

    scale: Annotated[float, Field(gt=0)]
    zero_point: int = 0


class TensorSpec(Spec):
    """Name, fixed shape, dtype and axis order of one tensor.

    `layout` names the axes in order, one letter an axis: N batch, C channel, H row, W column,
    L token. `None` says that no name fits.
    """

    name: Annotated[str, Field(min_length=1)]
    shape: tuple[Positive, ...]
    dtype: DType = "float32"
    layout: Layout | None = None
    quantization: Quantization | None = None

    @model_validator(mode="after")
    def _layout_fits(self) -> TensorSpec:
        if self.layout not in (None, "scalar") and len(self.layout or "") != len(self.shape):
            raise ValueError(f"layout {self.layout} does not fit a shape of rank {len(self.shape)}")
        return self

    def check(self, array: NDArray[Any]) -> None:
        """Raise `TensorMismatch` unless the array has this shape and dtype."""
        if tuple(array.shape) != self.shape or array.dtype != np.dtype(self.dtype):
            raise TensorMismatch(
                f"tensor '{self.name}' takes {self.dtype} of shape {self.shape}, "
                f"got {array.dtype} of shape {tuple(array.shape)}"
            )


class ImageSpec(Spec):
    """How an image becomes a model's input: RGB, 0 to 255, of a fixed size.

    With `fit="crop"` the resize rule is timm's evaluation transform: the shorter side is scaled to
    `size / crop_fraction` (rounded down) with `interpolation`, then the centre is cropped. With
    `fit="stretch"` both sides are scaled to the size, whatever the aspect ratio.
    Normalisation (mean, standard deviation) is inside every exported graph.
    """

    height: Positive
    width: Positive
    channel_order: Literal["RGB"] = "RGB"
    value_range: tuple[float, float] = (0.0, 255.0)
    crop_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    fit: Literal["crop", "stretch"] = "crop"

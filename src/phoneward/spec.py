"""Frozen, checked descriptions of tensors and of the image a model expects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from phoneward.errors import TensorMismatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

DType = Literal["float32", "float16", "int32", "int8", "uint8", "bool"]
Layout = Literal["NCHW", "NHWC", "NC", "NLC", "C", "scalar"]
Positive = Annotated[int, Field(gt=0)]
ChannelOrder = Literal["RGB", "GRAY"]

LOGITS = "logits"
_CHANNELS = {"RGB": 3, "GRAY": 1}


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


def logits_in(outputs: Sequence[TensorSpec]) -> TensorSpec | None:
    """Return the output that holds scores of classes: layout NC, named `logits`; None without one.

    A stage with such an output is a classifier, whatever else it returns; one without is none.
    """
    return next((spec for spec in outputs if spec.layout == "NC" and spec.name == LOGITS), None)


class ImageSpec(Spec):
    """How an image becomes a model's input: RGB or grey, 0 to 255, of a fixed size.

    `GRAY` has one channel, the luma of ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B).

    With `fit="crop"` the resize rule is timm's evaluation transform: the shorter side is scaled to
    `size / crop_fraction` (rounded down) with `interpolation`, then the centre is cropped. With
    `fit="stretch"` both sides are scaled to the size, whatever the aspect ratio.
    Normalisation (mean, standard deviation) is inside every exported graph.
    """

    height: Positive
    width: Positive
    channel_order: ChannelOrder = "RGB"
    value_range: tuple[float, float] = (0.0, 255.0)
    crop_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    fit: Literal["crop", "stretch"] = "crop"

    @property
    def channels(self) -> int:
        """How many numbers a pixel has."""
        return _CHANNELS[self.channel_order]

    def fits(self, tensor: TensorSpec) -> bool:
        """Whether a tensor, NCHW or NHWC, has the image's channels and size, in any number."""
        sizes = {"N": None, "C": self.channels, "H": self.height, "W": self.width}
        if tensor.layout not in ("NCHW", "NHWC"):
            return False
        pairs = zip(tensor.layout, tensor.shape, strict=True)
        return all(sizes[axis] in (None, size) for axis, size in pairs)

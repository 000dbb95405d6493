"""Core ML itself, through coremltools; macOS only.

This file has not been run: Phoneward is developed on Linux, where Core ML does not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.runtime.engines.session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CoreMLSession(Session):
    """A Core ML package on all compute units; `threads` has no meaning there.

    Image inputs take whole numbers: a float32 array (1, 3, H, W) of RGB 0 to 255, or (1, 1, H, W)
    of grey, becomes an 8-bit image.
    """

    def _load(self) -> None:
        import coremltools

        self._model: Any = coremltools.models.MLModel(str(self.path))
        features = self._model.get_spec().description.input
        self._images = {f.name for f in features if f.type.WhichOneof("Type") == "imageType"}

    def _run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        feeds = {
            spec.name: _image(array) if spec.name in self._images else array
            for spec, array in zip(self.inputs, arrays, strict=True)
        }
        answer = self._model.predict(feeds)
        return [np.array(answer[spec.name], np.dtype(spec.dtype)) for spec in self.outputs]

    def _unload(self) -> None:
        del self._model


def _image(array: NDArray[Any]) -> Any:
    from PIL import Image

    pixels = np.moveaxis(array[0], 0, -1).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)

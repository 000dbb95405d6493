"""Annotations as image files: the index of a pixel is its object, or its color says it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from phoneward.errors import ImageError
from phoneward.runtime.evaluation.sequence import VOID

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WHITE = 0xFFFFFF


def davis_palette() -> NDArray[np.uint8]:
    """Return the colors of PASCAL VOC and DAVIS, uint8 (256, 3).

    The bits of an index go to red, green and blue in turn, the lowest ones to the highest bits of
    the colors.
    """
    index = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            position = 3 * bit + channel
            if position < 8:
                colors[:, channel] |= (((index >> position) & 1) << (7 - bit)).astype(np.uint8)
    return colors


def read_annotation(path: Path) -> NDArray[np.uint8]:
    """Read an annotation as uint8 (H, W): 0 the background, 1 to 254 the objects, 255 void.

    A palette image has the object as its index, whatever its colors; a grey image as its level; a
    color image in the colors of `davis_palette`, or white. Black and white only, without a
    palette, therefore is 0 and 255: see `is_binary`.

    Raises:
        ImageError: the file is no whole image, or has other colors or levels above 255.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _ids(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(path, "too many pixels") from error
    except Exception as error:  # pillow's readers raise anything over damaged bytes
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(path, reason) from error


def is_binary(path: Path) -> bool:
    """Tell an annotation of one object in white, as DAVIS 2016 has, from one of ids.

    It has no palette, and of all levels only 0 and 255. Raises `ImageError` as `read_annotation`.
    """
    values = read_annotation(path)
    with Image.open(path) as image:
        return image.mode != "P" and set(np.unique(values).tolist()) == {0, VOID}


def write_annotation(path: Path, labels: NDArray[np.uint8]) -> None:
    """Write ids (H, W) as a PNG with the palette of DAVIS; raises OSError."""
    image = Image.fromarray(labels)
    image.putpalette(davis_palette().tobytes())
    image.save(path, compress_level=1)


def _ids(image: Any) -> NDArray[np.uint8]:
    if image.mode in {"P", "L"}:
        return np.array(image, np.uint8)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * VOID
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > VOID:
            raise ValueError("levels above 255 name no object")
        return levels.astype(np.uint8)
    if image.mode == "LA":
        return np.array(image.getchannel("L"), np.uint8)
    if image.mode in {"RGB", "RGBA"}:
        return _ids_of_colors(np.asarray(image.convert("RGB")))
    raise ValueError(f"an annotation is a palette, grey or color image, not of mode {image.mode}")


def _ids_of_colors(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    codes = _codes(pixels)
    known = _codes(davis_palette())
    known[VOID] = _WHITE  # the one color of the palette that no data set uses for its index
    order = np.argsort(known)
    place = np.searchsorted(known[order], codes).clip(max=VOID)
    ids = order[place].astype(np.uint8)
    if (strange := known[ids] != codes).any():
        row, column = np.argwhere(strange)[0]
        red, green, blue = pixels[row, column]
        raise ValueError(
            f"the color ({red}, {green}, {blue}) of the pixel {column},{row} names no object; "
            "an annotation in color has the palette of DAVIS, or black and white"
        )
    return np.asarray(ids, np.uint8)


def _codes(colors: NDArray[np.uint8]) -> NDArray[np.int64]:
    red, green, blue = np.moveaxis(colors.astype(np.int64), -1, 0)
    return np.asarray((red << 16) | (green << 8) | blue, np.int64)

"""Image files to model input, as timm's evaluation transform does it, without torch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from phoneward.errors import ImageError, InvalidSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.spec import ImageSpec, TensorSpec

_MOST_UNEQUAL = 100
_TOP16 = 65535
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def load_image(path: Path) -> Image.Image:
    """Read an image file as RGB, turned upright by its EXIF orientation.

    Grey, palette, CMYK and 16-bit images work; alpha is dropped. Pixels of 32 bits do not: their
    range is not in the file.

    Raises:
        ImageError: missing, truncated, not an image, so large as to be a decompression bomb, or
            one side more than 100 times the other (scaling the shorter one would be the bomb).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata beside sound pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                if max(opened.size) > _MOST_UNEQUAL * min(opened.size):
                    raise ImageError(path, f"{opened.width}x{opened.height} is a line")
                return _to_rgb(ImageOps.exif_transpose(opened))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(path, "no image format that pillow knows") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(path, "too many pixels") from error
    except Exception as error:  # pillow's readers raise anything over damaged bytes
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(path, reason) from error


def prepare(image: Image.Image, spec: ImageSpec, tensor: TensorSpec) -> NDArray[np.float32]:
    """Fit an image to the square as `spec.fit` says, and lay it out as `tensor` asks.

    Returns float32 RGB, 0 to 255, of shape (1, 3, H, W) or (1, H, W, 3).

    The arithmetic of `fit="crop"` is that of timm's `create_transform` (torchvision's Resize and
    CenterCrop on a PIL image): the shorter side becomes `floor(size / crop_fraction)`, the longer
    one is truncated, and half a pixel of the crop rounds to even.
    """
    if spec.height != spec.width:
        raise InvalidSpec(f"images of {spec.height}x{spec.width} are not square")
    pixels = np.asarray(_fitted(image, spec), np.float32)
    if tensor.layout == "NCHW":
        pixels = pixels.transpose(2, 0, 1)
    elif tensor.layout != "NHWC":
        raise InvalidSpec(f"tensor '{tensor.name}' of layout {tensor.layout} takes no image")
    return np.ascontiguousarray(pixels[None])


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("pixels of 32 bits")
    if image.mode.startswith("I"):
        # pillow clips 16-bit greys at 255; older versions read them as 32-bit integers
        values = np.asarray(image)
        if values.min() < 0 or values.max() > _TOP16:
            raise ValueError("pixels of 32 bits")
        image = Image.fromarray((values / _TOP16 * 255).round().astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _fitted(image: Image.Image, spec: ImageSpec) -> Image.Image:
    resampling = _FILTERS[spec.interpolation]
    if spec.fit == "stretch":
        return image.resize((spec.width, spec.height), resampling)
    scaled = _scale(image, int(spec.height / spec.crop_fraction), resampling)
    return _crop(scaled, spec.height)


def _scale(image: Image.Image, shorter: int, resampling: Any) -> Image.Image:
    width, height = image.size
    if width <= height:
        size = shorter, int(shorter * height / width)
    else:
        size = int(shorter * width / height), shorter
    return image if size == image.size else image.resize(size, resampling)


def _crop(image: Image.Image, size: int) -> Image.Image:
    left = round((image.width - size) / 2.0)
    top = round((image.height - size) / 2.0)
    return image.crop((left, top, left + size, top + size))

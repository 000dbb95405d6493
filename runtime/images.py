"""Image files to model input, as timm's evaluation transform does it, without torch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from phoneward.errors import ImageError, InvalidSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from phoneward.spec import ImageSpec, TensorSpec

Loaded = TypeVar("Loaded")

_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
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
    return _loaded(path, _to_rgb)


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder by name, without those of folders in it and hidden ones.

    Raises:
        ImageError: there are none, or the folder cannot be listed.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    except OSError as error:
        raise ImageError(folder, error.strerror or str(error)) from error
    files = [path for path in found if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise ImageError(folder, "a folder without images in it")
    return files


def load_levels(path: Path) -> NDArray[np.uint8]:
    """Read an image file that shows a mask as uint8 (H, W), 0 in the background.

    The level is the brightest channel's, times alpha where there is one. In a palette image index
    0 is the background and every other index 255, as in annotations of video objects.

    Raises:
        ImageError: as `load_image`, or a bright and opaque color has index 0 of a palette.
    """
    return _loaded(path, _to_levels)


def _loaded(path: Path, convert: Callable[[Image.Image], Loaded]) -> Loaded:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata beside sound pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                if max(opened.size) > _MOST_UNEQUAL * min(opened.size):
                    raise ImageError(path, f"{opened.width}x{opened.height} is a line")
                return convert(ImageOps.exif_transpose(opened))
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

    Returns float32, 0 to 255, of shape (1, C, H, W) or (1, H, W, C): RGB, or of `GRAY` one channel,
    pillow's "L" (ITU-R BT.601 luma, rounded before the image is scaled). Grey pixels, also as
    `load_image` makes them RGB, keep their value exactly.

    The arithmetic of `fit="crop"` is that of timm's `create_transform` (torchvision's Resize and
    CenterCrop on a PIL image): the shorter side becomes `floor(size / crop_fraction)`, the longer
    one is truncated, and half a pixel of the crop rounds to even.
    """
    if spec.height != spec.width:
        raise InvalidSpec(f"images of {spec.height}x{spec.width} are not square")
    # the weights of pillow's luma add up to 1: equal channels come out as they were
    image = image.convert("L") if spec.channel_order == "GRAY" else image
    pixels = np.asarray(_fitted(image, spec), np.float32).reshape(
        spec.height, spec.width, spec.channels
    )
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


def _to_levels(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith(("I", "F")):
        return np.asarray(np.asarray(_to_rgb(image)).max(axis=2), np.uint8)
    indices = np.asarray(image) if image.mode == "P" else None
    pixels = np.asarray(image.convert("RGBA"), np.uint16)
    alpha = pixels[..., 3]
    levels = np.asarray(pixels[..., :3].max(axis=2) * alpha // 255, np.uint8)
    if indices is None:
        return levels
    if (levels[indices == 0] > 127).any():
        raise ValueError(
            "a bright color has index 0 of the palette, the background's; save the mask in grey"
        )
    return np.asarray(np.where(indices > 0, alpha, 0), np.uint8)


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

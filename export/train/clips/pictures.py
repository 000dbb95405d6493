"""Picture files to the arrays that clips are made of: photographs, cut-outs and their parts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy import ndimage

from phoneward.errors import DataError, ImageError
from phoneward.export.train.clips.sources import CUTOUT, DRAWING, PHOTO, Source

Pixels = NDArray[np.uint8]

REGION = "region"

_LONGEST = {PHOTO: 640, CUTOUT: 320, DRAWING: 256}
_SHORTEST_PHOTO = 48
_PLAIN = 6
_OPAQUE = 128
_LEAST_PIXELS = 300
_LEAST_SHARE = 0.04
# shares of inner pixels with a visible but not hard second derivative: photographs have 0.5 and
# more of them, shaded drawings 0.2, flat ones almost none
_PHOTOGRAPHIC, _SHADED = 0.5, 0.15
_FAINT, _HARD = 1.5, 60.0

_SEGMENTED_AT = 192
_REGION_SHARES = (0.008, 0.35)
_MOST_REGIONS = 14


def read_picture(source: Source) -> tuple[str, Pixels] | None:
    """Read a file as its kind and pixels: RGB (H, W, 3), or RGBA (H, W, 4) cropped to what shows.

    A cut-out without the grain of a photograph is a `DRAWING`. Of the system's, None is
    returned for what is flat, not one thing but specks, or so large that pillow takes it for an
    attack.

    Raises:
        ImageError: it cannot be read.
        DataError: the user's picture is too small or shows nothing.
    """
    try:
        image = _opened(source.path)
    except ImageError:
        if not source.own:
            return None
        raise
    alpha = np.asarray(image.getchannel("A"))
    if source.kind == PHOTO and (alpha < _OPAQUE).mean() < 0.02:
        return _photo(image.convert("RGB"), source)
    box = Image.fromarray(alpha).point([255 * (level > 24) for level in range(256)]).getbbox()
    cut = image.crop(box) if box else image
    kind = CUTOUT if source.kind == PHOTO else source.kind
    cut.thumbnail((_LONGEST[kind], _LONGEST[kind]), Image.Resampling.LANCZOS)
    pixels = np.asarray(cut)
    solid = pixels[..., 3] >= _OPAQUE
    if solid.sum() < _LEAST_PIXELS or solid.mean() < _LEAST_SHARE:
        if source.own:
            raise DataError(source.path, "an object too small or too transparent to cut out")
        return None
    if source.own:
        return CUTOUT, pixels
    grain = _grain(pixels, solid)
    if grain < _SHADED:
        return None
    return (CUTOUT if kind == CUTOUT and grain >= _PHOTOGRAPHIC else DRAWING), pixels


def regions_of(photo: Pixels) -> Iterator[Pixels]:
    """Cut a photograph (H, W, 3) into parts of alike pixels, as RGBA (h, w, 4), the largest first.

    The parts are those of Felzenszwalb and Huttenlocher (IJCV 2004), each alone and with the
    neighbour it has the longest border with, holes filled; edges are soft by a pixel.
    """
    from skimage.segmentation import felzenszwalb

    height, width = photo.shape[:2]
    small = Image.fromarray(photo)
    small.thumbnail((_SEGMENTED_AT, _SEGMENTED_AT), Image.Resampling.BOX)
    labels = felzenszwalb(np.asarray(small), scale=250, sigma=0.9, min_size=120)
    masks = [labels == label for label in range(labels.max() + 1)]
    masks += [mask | masks[_neighbour(labels, mask)] for mask in list(masks)]
    low, high = _REGION_SHARES
    filled = [
        ndimage.binary_fill_holes(ndimage.binary_opening(mask, iterations=2)) for mask in masks
    ]
    whole = [_largest_part(mask) for mask in filled]
    fit = [mask for mask in whole if low <= mask.mean() <= high and not _is_frame(mask)]
    for mask in sorted(fit, key=lambda mask: -int(mask.sum()))[:_MOST_REGIONS]:
        soft = ndimage.gaussian_filter(mask.astype(np.float32) * 255, 1.2)
        big = Image.fromarray(soft).resize((width, height), Image.Resampling.BICUBIC)
        # a contrast that makes the edge two pixels wide again
        alpha = np.clip((np.asarray(big) - 127.5) * (2.4 * width / small.width) + 127.5, 0, 255)
        rows, columns = (np.flatnonzero(alpha.max(axis) > 24) for axis in (1, 0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        yield np.dstack([photo[box], alpha[box].astype(np.uint8)])


def _opened(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata beside sound pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                opened.draft("RGB", (1280, 1280))
                return ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning) as error:
        raise ImageError(path, str(error) or type(error).__name__) from error
    except Image.DecompressionBombError as error:
        raise ImageError(path, str(error)) from error


def _photo(image: Image.Image, source: Source) -> tuple[str, Pixels] | None:
    image.thumbnail((_LONGEST[PHOTO], _LONGEST[PHOTO]), Image.Resampling.LANCZOS)
    if min(image.size) < _SHORTEST_PHOTO:
        if not source.own:
            return None
        raise DataError(source.path, f"{image.width}x{image.height} is too small a photograph")
    pixels = np.asarray(image)
    if not source.own and pixels.std((0, 1)).max() < _PLAIN:
        return None
    return PHOTO, pixels


def _grain(pixels: Pixels, solid: NDArray[np.bool_]) -> float:
    """Return the share of inner pixels that differ a little from the mean of their neighbours."""
    grey = pixels[..., :3].mean(2, dtype=np.float32)
    inner = ndimage.binary_erosion(solid)
    second = np.abs(ndimage.laplace(grey))[inner]
    return float(((second > _FAINT) & (second < _HARD)).mean()) if second.size else 0.0


def _neighbour(labels: NDArray[np.int64], mask: NDArray[np.bool_]) -> int:
    """Return the label of the part with the longest border, the part's own if it is alone."""
    ring = ndimage.binary_dilation(mask) & ~mask
    around = labels[ring]
    return int(np.bincount(around).argmax()) if around.size else int(labels[mask][0])


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    largest: NDArray[np.bool_] = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return largest


def _is_frame(mask: NDArray[np.bool_]) -> bool:
    """Tell what lies along most of the picture's border: the ground, not a thing."""
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return bool(border.mean() > 0.3)

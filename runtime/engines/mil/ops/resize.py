"""Images at another size: resized, cropped, sampled anywhere.

Core ML's words are coremltools' docstrings and its tests, which ran on Apple's own machines.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from phoneward.runtime.engines.mil.ops.sampling import between, bilinear, grid, lookup, reflected
from phoneward.runtime.engines.mil.signature import Ints, Table

TABLE = Table()

# a scale that stands for a size may be this much off it: coremltools adds 1e-4 to the size
_OFF = 1e-3

# sampling modes that PyTorch has, which is faster
_ALIGN = {"STRICT_ALIGN_CORNERS": True, "UNALIGN_CORNERS": False}

_BOXES = {
    "CORNERS_HEIGHT_FIRST": (0, 1, 2, 3),
    "CORNERS_WIDTH_FIRST": (1, 0, 3, 2),
    "CENTER_SIZE_HEIGHT_FIRST": (0, 1, 2, 3),
    "CENTER_SIZE_WIDTH_FIRST": (1, 0, 3, 2),
}


@TABLE.mover
def upsample_nearest_neighbor(
    x: Tensor, scale_factor_height: float = 1.0, scale_factor_width: float = 1.0
) -> Tensor:
    for axis, scale in ((-2, scale_factor_height), (-1, scale_factor_width)):
        size = x.shape[axis]
        target = _scaled(size, scale)
        # as PyTorch: a target size sets the step, a scale that does not reach one sets it itself
        by_size = abs(size * scale - target) < _OFF
        step = np.float32(size / target if by_size else 1 / scale)
        at = torch.from_numpy(np.arange(target, dtype=np.float32) * step)
        x = x.index_select(axis, at.long().clamp(max=size - 1))
    return x


@TABLE.mover
def resize_nearest_neighbor(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    return _nearest(x, (target_size_height, target_size_width))


@TABLE.op
def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1.0,
    scale_factor_width: float = 1.0,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    centres = not align_corners if half_pixel_centers is None else half_pixel_centers
    if align_corners and centres:
        raise ValueError("align_corners and half_pixel_centers exclude each other")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if centres else "DEFAULT"
    height = _scaled(x.shape[-2], scale_factor_height)
    width = _scaled(x.shape[-1], scale_factor_width)
    return _linear(x, (height, width), mode)


@TABLE.op
def resize_bilinear(
    x: Tensor,
    target_size_height: int = 1,
    target_size_width: int = 1,
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    return _linear(x, (target_size_height, target_size_width), sampling_mode)


@TABLE.op
def resize(
    x: Tensor,
    shape: Ints,
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    # a size of 0 stays as it is
    now = x.shape[x.dim() - resized_dims :]
    wanted = shape[len(shape) - resized_dims :]
    sizes = tuple(size or old for size, old in zip(wanted, now, strict=True))
    if interpolation_mode == "LINEAR":
        if not x.is_floating_point():
            raise ValueError(
                "linear interpolation of whole numbers: its rounding is not documented"
            )
        return _linear(x, sizes, sampling_mode)
    if interpolation_mode != "NEAREST_NEIGHBOR":
        raise ValueError(f"no interpolation_mode '{interpolation_mode}'")
    # by default the op is `resize_nearest_neighbor`, whose pixels have the same centres
    if sampling_mode not in ("DEFAULT", "UNALIGN_CORNERS"):
        raise ValueError(f"nearest neighbours with sampling_mode '{sampling_mode}'")
    return _nearest(x, sizes)


@TABLE.mover
def crop(x: Tensor, crop_height: Ints, crop_width: Ints) -> Tensor:
    height, width = x.shape[-2:]
    rows = slice(crop_height[0], height - crop_height[1])
    return x[..., rows, crop_width[0] : width - crop_width[1]]


@TABLE.op
def crop_resize(
    x: Tensor,
    roi: Tensor | None = None,
    boxes: Tensor | None = None,
    box_indices: Tensor | None = None,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
) -> Tensor:
    if box_coordinate_mode not in _BOXES:
        raise ValueError(f"no box_coordinate_mode '{box_coordinate_mode}'")
    values, images = _boxes(x, roi, boxes, box_indices)
    extent = torch.tensor([size - 1 for size in x.shape[-2:]] * 2, dtype=torch.float64)
    placed = values.double()[:, _BOXES[box_coordinate_mode]] * spatial_scale
    placed = placed * extent if normalized_coordinates else placed
    starts, ends = placed[:, :2], placed[:, 2:]
    if box_coordinate_mode.startswith("CENTER"):
        starts, ends = starts - ends / 2, starts + ends / 2
    rows = grid(starts[:, 0], ends[:, 0], target_height, sampling_mode)[:, :, None]
    columns = grid(starts[:, 1], ends[:, 1], target_width, sampling_mode)[:, None]
    # a point off the image is padding as a whole, not mixed with the image's edge
    inside = _inside(rows, x.shape[-2]) & _inside(columns, x.shape[-1])
    shape = (len(values), target_height, target_width)
    patches = bilinear(
        x[images], rows.expand(shape).float(), columns.expand(shape).float(), pad_value
    )
    patches = torch.where(inside[:, None], patches, pad_value)
    if roi is None:
        return patches
    # one patch for each box and, where boxes name no image, each image
    return patches.reshape(roi.shape[0], -1, *patches.shape[1:])


@TABLE.op
def affine(
    x: Tensor,
    transform_matrix: Tensor,
    output_height: int,
    output_width: int,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    # what the op's documentation leaves out or calls not supported no phone computes
    if sampling_mode != "bilinear" or coordinates_mode != "normalized_minus_one_to_one":
        raise ValueError(f"sampling_mode '{sampling_mode}', coordinates_mode '{coordinates_mode}'")
    if padding_mode != "constant" or padding_value != 0 or not align_corners:
        raise ValueError(
            f"padding_mode '{padding_mode}' of {padding_value}, align_corners={align_corners}"
        )
    # a single row or column lies in the middle, as in PyTorch
    rows, columns = (
        torch.linspace(-1, 1, size) if size > 1 else torch.zeros(1)
        for size in (output_height, output_width)
    )
    down, across = torch.meshgrid(rows, columns, indexing="ij")
    places = torch.stack([across, down, torch.ones_like(down)], -1)
    matrices = transform_matrix.reshape(-1, 1, 2, 3).expand(x.shape[0], 1, 2, 3)
    points = places @ matrices.mT
    return _sampled(x, points, ("bilinear", "constant", coordinates_mode), 0.0, True)


@TABLE.op
def resample(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    modes = (sampling_mode, padding_mode, coordinates_mode)
    return _sampled(x, coordinates.float(), modes, padding_value, align_corners)


def _scaled(size: int, scale: float) -> int:
    """A size times a scale, rounded down in float32 as coremltools infers shapes."""
    return int(np.floor(np.float32(scale) * np.float32(size)))


def _linear(x: Tensor, sizes: Ints, mode: str) -> Tensor:
    """Resize the last `len(sizes)` axes linearly, on the grid of a sampling mode."""
    if mode in _ALIGN and len(sizes) == 2:
        images = x.reshape(1, -1, *x.shape[-2:])
        resized = F.interpolate(images, sizes, mode="bilinear", align_corners=_ALIGN[mode])
        return resized.reshape(*x.shape[:-2], *sizes)
    for axis, target in enumerate(sizes, start=x.dim() - len(sizes)):
        ends = torch.tensor([x.shape[axis] - 1], dtype=torch.float64)
        x = between(x, axis, grid(torch.zeros_like(ends), ends, target, mode)[0])
    return x


def _nearest(x: Tensor, sizes: Ints) -> Tensor:
    """The pixels that the centres of the target's pixels fall into."""
    for axis, target in enumerate(sizes, start=x.dim() - len(sizes)):
        # in whole numbers: a centre on the edge of two pixels belongs to the latter
        index = (2 * torch.arange(target) + 1) * x.shape[axis] // (2 * target)
        x = x.index_select(axis, index)
    return x


def _boxes(
    x: Tensor, roi: Tensor | None, boxes: Tensor | None, box_indices: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Four values a patch, and the image of each: `roi` up to iOS 16, `boxes` from iOS 17 on."""
    batch = x.shape[0]
    if boxes is not None:
        values = boxes
        images = torch.arange(len(boxes)) if box_indices is None else box_indices.long()
    elif roi is None:
        raise ValueError("neither roi nor boxes")
    else:
        values = roi.flatten(1)
        if values.shape[1] == 4:
            return values.repeat_interleave(batch, 0), torch.arange(batch).repeat(len(values))
        images, values = values[:, 0].long(), values[:, 1:]
    if bool(((images < 0) | (images >= batch)).any()):
        raise ValueError(f"a box of image {int(images.max())}, of {batch}")
    return values, images


def _inside(points: Tensor, size: int) -> Tensor:
    return (points >= 0) & (points <= size - 1)


def _sampled(
    x: Tensor, points: Tensor, modes: tuple[str, str, str], outside: float, align: bool
) -> Tensor:
    """Values at points (n, h, w, 2), which are (x, y); as PyTorch's `grid_sample`, and more."""
    sampling, padding, coordinates = modes
    places = []
    for axis, size in ((1, x.shape[-2]), (0, x.shape[-1])):
        at = _pixels(points[..., axis], size, coordinates, align)
        # far off, infinite or not a number is off the image, and no index
        at = at.nan_to_num(-2.0, math.inf, -math.inf).clamp(-(2.0**30), 2.0**30)
        places.append(_padded(at, size, padding))
    rows, columns = places
    if sampling == "bilinear":
        return bilinear(x, rows, columns, outside)
    if sampling == "nearest":
        return lookup(x, rows.round().long(), columns.round().long(), outside)
    raise ValueError(f"no sampling_mode '{sampling}'")


def _pixels(points: Tensor, size: int, mode: str, align: bool) -> Tensor:
    if mode == "unnormalized":
        return points
    if mode == "normalized_zero_to_one":
        points = points * 2 - 1
    elif mode != "normalized_minus_one_to_one":
        raise ValueError(f"no coordinates_mode '{mode}'")
    return (points + 1) / 2 * (size - 1) if align else ((points + 1) * size - 1) / 2


def _padded(points: Tensor, size: int, mode: str) -> Tensor:
    """Points in pixels, brought onto the image unless what is off it is constant."""
    if mode == "constant":
        return points
    if mode == "reflection":
        points = reflected(points, 0, size - 1)
    elif mode == "symmetric":
        points = reflected(points, -0.5, size - 0.5)
    elif mode != "border":
        raise ValueError(f"no padding_mode '{mode}'")
    return points.clamp(0, size - 1)

"""Pictures into frames: warped by grids of quadrilaterals, blurred along their motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]
Shares = NDArray[np.float32]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Waves:
    """A smooth displacement that changes over time: the sum of k travelling waves.

    Attributes:
        shifts: (k, 2) amplitudes in pixels of the picture.
        rates: (k, 3) radians a pixel of x and of y, and a frame.
        phases: (k,) radians.
    """

    shifts: Floats
    rates: Floats
    phases: Floats

    def at(self, places: Floats, time: int) -> Floats:
        """Return the displacement at places (..., 2) of the picture in a frame."""
        angles = places @ self.rates[:, :2].T + self.rates[:, 2] * time + self.phases
        moved: Floats = np.sin(angles) @ self.shifts
        return moved

    @property
    def reach(self) -> float:
        """The longest displacement there can be, in pixels."""
        return float(np.abs(self.shifts).sum(0).max())


def grid_of(box: Box, cells: int) -> Floats:
    """Return (cells + 1, cells + 1, 2): the corners of a box divided into whole pixels."""
    left, top, right, bottom = box
    xs = np.round(np.linspace(left, right, cells + 1))
    ys = np.round(np.linspace(top, bottom, cells + 1))
    return np.stack(np.meshgrid(xs, ys), -1)


def warp(image: Image.Image, grid: Floats, sources: Floats) -> NDArray[np.uint8]:
    """Sample a picture bilinearly into the box of a grid.

    Args:
        image: the picture; what lies outside of it is 0.
        grid: (g, g, 2) places of the frame, whole pixels, as `grid_of` makes them.
        sources: (g, g, 2) which place of the picture belongs to each.

    Returns:
        (h, w, channels): the box's pixels.
    """
    whole = grid.astype(int) - grid[0, 0].astype(int)
    width, height = (int(extent) for extent in whole[-1, -1])
    resample = Image.Resampling.BILINEAR
    if len(grid) == 2:
        quad = _quad(sources, 0, 0)
        return np.asarray(image.transform((width, height), Image.Transform.QUAD, quad, resample))
    mesh = [
        (
            (*whole[row, column].tolist(), *whole[row + 1, column + 1].tolist()),
            _quad(sources, row, column),
        )
        for row in range(len(grid) - 1)
        for column in range(len(grid) - 1)
        if (whole[row, column] < whole[row + 1, column + 1]).all()
    ]
    return np.asarray(image.transform((width, height), Image.Transform.MESH, mesh, resample))


def planar(pixels: NDArray[np.uint8]) -> Shares:
    """Return pixels (h, w, c) as (c, h, w) float32, in which arithmetic is several times faster."""
    planes: Shares = pixels.transpose(2, 0, 1).astype(np.float32, order="C")
    return planes


def _quad(sources: Floats, row: int, column: int) -> tuple[float, ...]:
    """Return a cell's corners as pillow wants them: NW, SW, SE, NE."""
    rows, columns = (row, row + 1, row + 1, row), (column, column, column + 1, column + 1)
    return tuple(sources[rows, columns].ravel().tolist())


def smeared(pixels: Shares, velocity: Floats) -> Shares:
    """Average pixels (c, h, w) along a velocity in pixels, as an open shutter does."""
    count = min(int(np.ceil(np.abs(velocity).max())) + 1, 9)
    if count < 3:
        return pixels
    shifts = np.round(np.linspace(-0.5, 0.5, count)[:, None] * velocity).astype(int)
    margin = int(np.abs(shifts).max())
    padded = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin)), "edge")
    height, width = pixels.shape[1:]
    total = np.zeros_like(pixels)
    for x, y in (shifts + margin).tolist():
        total += padded[:, y : y + height, x : x + width]
    total /= count
    return total

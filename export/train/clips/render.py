"""A scene to frames, and to the share of each pixel that each object has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from phoneward.export.train.clips.scene import Layer, Scene, Shadow
from phoneward.export.train.clips.warp import Box, grid_of, planar, smeared, warp

Shares = NDArray[np.float32]

_CELL = 32
_MOST_CELLS = 4
_VISIBLE = 0.5


def compose(scene: Scene, time: int) -> tuple[Shares, Shares]:
    """Render a frame before it is developed.

    Returns:
        (3, H, W) levels from 0 to 255; and (objects, H, W), how much of a pixel's light comes from
        each object, from 0 to 1.
    """
    width, height = scene.size
    frame = _ground(scene, time)
    shares = np.zeros((scene.objects, height, width), np.float32)
    seen: list[tuple[Box, int]] = []
    for layer in scene.layers:
        placed = _tile(layer, scene.size, time)
        if placed is None:
            continue
        box, pixels = placed
        left, top, right, bottom = box
        rows, columns = slice(top, bottom), slice(left, right)
        if layer.shadow:
            _cast(layer.shadow, frame, (left, top), pixels[3])
        alpha = pixels[3] * np.float32(1 / 255)
        rest = 1 - alpha
        part = frame[:, rows, columns]
        part *= rest
        part += pixels[:3]
        for index in {index for other, index in seen if _overlap(box, other)}:
            shares[index, rows, columns] *= rest
        if layer.owner:
            shares[layer.owner - 1, rows, columns] += alpha
            seen.append((box, layer.owner - 1))
    return frame, shares


def masks_of(shares: Shares) -> NDArray[np.uint8]:
    """Return (H, W): the object that has more than half of a pixel, 0 if none has."""
    masks = np.zeros(shares.shape[1:], np.uint8)
    for number, share in enumerate(shares, 1):
        masks[share > _VISIBLE] = number
    return masks


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _ground(scene: Scene, time: int) -> Shares:
    width, height = scene.size
    corners = scene.ground.corners
    nw, ne, se, sw = corners[time]
    if nw[1] == ne[1] and nw[0] == sw[0] and (nw + se == ne + sw).all():
        # upright: resampling by rows and columns takes a quarter of the time
        box = (float(nw[0]), float(nw[1]), float(se[0]), float(se[1]))
        image = scene.ground.image.resize(scene.size, Image.Resampling.BILINEAR, box)
        pixels = planar(np.asarray(image))
    else:
        grid = grid_of((0, 0, width, height), 1)
        pixels = planar(warp(scene.ground.image, grid, np.array([[nw, ne], [sw, se]])))
    if scene.shutter == 0 or len(corners) < 2:
        return pixels
    at = max(time, 1)
    return smeared(pixels, (corners[at] - corners[at - 1]).mean(0) * scene.shutter)


def _tile(layer: Layer, size: tuple[int, int], time: int) -> tuple[Box, Shares] | None:
    """Return where in the frame a layer is and its pixels there (4, h, w), colour times alpha."""
    matrix, centre = layer.matrices[time], layer.path.centres[time]
    half = np.array(layer.sprite.size) / 2
    smear = layer.velocity(time) * layer.shutter
    reach = layer.waves.reach * float(np.abs(layer.path.scales[time]).max()) if layer.waves else 0.0
    extent = np.abs(matrix) @ half + reach + np.abs(smear) / 2 + 1
    low = np.clip(np.floor(centre - extent), 0, size).astype(int)
    high = np.clip(np.ceil(centre + extent), 0, size).astype(int)
    box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    if (high - low).min() < 1:
        return None
    cells = int(np.clip((high - low).max() // _CELL, 2, _MOST_CELLS)) if layer.waves else 1
    grid = grid_of(box, cells)
    sources = (grid - centre) @ np.linalg.inv(matrix).T + half
    if layer.waves:
        sources = sources + layer.waves.at(sources, time)
    pixels = planar(warp(layer.sprite.image, grid, sources))
    return box, smeared(pixels, smear) if layer.shutter else pixels


def _cast(shadow: Shadow, frame: Shares, corner: tuple[int, int], alpha: Shares) -> None:
    """Darken a frame by a blurred copy of a tile's alpha (h, w), shifted."""
    margin = 2 * shadow.blur
    padded = Image.fromarray(np.pad(alpha.astype(np.uint8), margin))
    soft = np.asarray(padded.filter(ImageFilter.BoxBlur(shadow.blur)))
    left, top = (at - margin + move for at, move in zip(corner, shadow.offset, strict=True))
    x, y = max(-left, 0), max(-top, 0)
    # an end before the frame's edge must not count from its other one
    bottom, right = max(top + soft.shape[0], 0), max(left + soft.shape[1], 0)
    part = frame[:, max(top, 0) : bottom, max(left, 0) : right]
    if part.size:
        dark = soft[y : y + part.shape[1], x : x + part.shape[2]]
        part *= 1 - dark * np.float32(shadow.strength / 255)

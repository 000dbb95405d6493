"""The camera's motion, and the ground that it moves over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from phoneward.export.train.clips.motion import Floats, smooth, waver
from phoneward.export.train.clips.pictures import Pixels
from phoneward.export.train.clips.recipe import ClipRecipe, Level

_MOST_ZOOM = 0.35
_MOST_TURN = 0.25


@dataclass(frozen=True)
class Camera:
    """A similarity from the ground to each frame, about the frame's middle; none in frame 0.

    Attributes:
        pans: (n, 2) in pixels of the frame.
        turns: (n,) in radians.
        zooms: (n,).
        tilts: (n, 4, 2) by how much the ground's corners stray from that, in pixels.
        middle: (2,) the frame's middle in pixels.
    """

    pans: Floats
    turns: Floats
    zooms: Floats
    tilts: Floats
    middle: Floats

    def seen(self, centres: Floats) -> Floats:
        """Map places on the ground (n, 2) to the frames."""
        cos, sin = np.cos(self.turns), np.sin(self.turns)
        x, y = ((centres - self.middle) * self.zooms[:, None]).T
        turned = np.stack([cos * x - sin * y, sin * x + cos * y], -1)
        moved: Floats = turned + self.middle + self.pans
        return moved

    def corners(self, width: int, height: int) -> Floats:
        """Return (n, 4, 2): where on the ground the frame's corners are, clockwise from (0, 0)."""
        frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
        offset = (frame - self.middle - self.pans[:, None]) / self.zooms[:, None, None]
        cos, sin = np.cos(self.turns)[:, None], np.sin(self.turns)[:, None]
        x, y = offset[..., 0], offset[..., 1]
        back = np.stack([cos * x + sin * y, -sin * x + cos * y], -1)
        corners: Floats = back + self.middle + self.tilts
        return corners


def draw_camera(rng: np.random.Generator, recipe: ClipRecipe, level: Level, pace: float) -> Camera:
    """Draw a camera that stands, pans, zooms, turns or shakes in a hand."""
    n, side = recipe.frames, recipe.side
    standing = rng.random() < 0.25
    pan = 0.0 if standing else level.pan * side * pace * rng.random() ** 1.5
    shake = level.pan * side * 0.25 * rng.random() ** 3
    pans = np.stack([smooth(rng, n, pan), smooth(rng, n, pan * rng.uniform(0, 0.6))], -1)
    jitter = rng.normal(0, 1, (n, 2)) * shake
    share = pan / max(level.pan * side, 1e-9)
    # a camera on a rail or a stand is as common as one in a hand
    share_turned = share if rng.random() < 0.5 else 0.0
    turning = np.deg2rad(level.turn) * 0.25 * share_turned
    turns = np.clip(smooth(rng, n, turning), -_MOST_TURN, _MOST_TURN)
    zooms = np.exp(np.clip(smooth(rng, n, 0.4 * level.pan * share), -_MOST_ZOOM, _MOST_ZOOM))
    height = 0.06 * side * share_turned
    tilts = [waver(rng, n, height, level.pan * side * 0.2) for _ in range(8)]
    return Camera(
        pans + jitter - jitter[0],
        turns,
        zooms,
        np.stack(tilts, -1).reshape(n, 4, 2) if share_turned else np.zeros((n, 4, 2)),
        np.array([recipe.width, recipe.height]) / 2,
    )


@dataclass(frozen=True)
class Ground:
    """A picture of all that the camera sees of the ground.

    Attributes:
        image: RGB.
        corners: (n, 4, 2): the frame's corners in it, clockwise from the upper left one.
    """

    image: Image.Image
    corners: Floats


def draw_ground(
    rng: np.random.Generator, picture: Pixels, camera: Camera, size: tuple[int, int]
) -> Ground:
    """Lay a picture (H, W, 3) under all that the camera sees, mirrored if it is too small."""
    corners = camera.corners(*size)
    low, high = corners.min((0, 1)) - 1, corners.max((0, 1)) + 1
    width, height = (int(np.ceil(extent)) for extent in high - low)
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    tall, wide = picture.shape[:2]
    # mirrored rather than enlarged to mush
    if min(wide / width, tall / height) < 0.55:
        picture = np.concatenate([picture, picture[:, ::-1]], 1)
        picture = np.concatenate([picture, picture[::-1]], 0)
        tall, wide = picture.shape[:2]
    largest = min(wide / width, tall / height)
    scale = min(largest, max(rng.uniform(0.35, 1) * largest, min(largest, 0.7)))
    w, h = scale * width, scale * height
    left, top = rng.uniform(0, max(wide - w, 0)), rng.uniform(0, max(tall - h, 0))
    box = (left, top, min(left + w, wide), min(top + h, tall))
    image = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR, box, 2.0)
    return Ground(image, corners - low)

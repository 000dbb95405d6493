"""What all things of a scene are drawn with."""

from __future__ import annotations

from dataclasses import dataclass

from phoneward.export.train.clips.camera import Camera
from phoneward.export.train.clips.pictures import Pixels
from phoneward.export.train.clips.pool import Pool
from phoneward.export.train.clips.recipe import ClipRecipe, Level


@dataclass(frozen=True)
class Setting:
    """The stage of a scene.

    Attributes:
        ground: (H, W, 3) the picture behind all.
        pace: factor of all speeds, as if every so manieth frame had been taken.
        shutter: share of a frame's time in which light comes in.
    """

    pool: Pool
    recipe: ClipRecipe
    level: Level
    camera: Camera
    ground: Pixels
    pace: float
    shutter: float

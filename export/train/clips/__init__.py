"""Video clips with exact masks of several objects, made from pictures that are on every machine.

Things cut out of photographs, or shapes filled with them, move over photographs and textures, pass
one another, leave and come back; the masks are what the renderer knows. The idea of training
trackers so is old: static images as in STM (Oh et al., ICCV 2019), flying things as in FlyingChairs
(Dosovitskiy et al., ICCV 2015). `docs/clips.md` tells of the pictures and their licences.
"""

from __future__ import annotations

import importlib.util

from phoneward.errors import MissingExtra

if importlib.util.find_spec("scipy") is None:
    raise MissingExtra("scipy", "clips")

from phoneward.export.train.clips.davis import held_out, write_davis
from phoneward.export.train.clips.generate import LEAST_SHARE, generate
from phoneward.export.train.clips.pool import Pool, open_pool
from phoneward.export.train.clips.recipe import LEVELS, Clip, ClipRecipe

__all__ = [
    "LEAST_SHARE",
    "LEVELS",
    "Clip",
    "ClipRecipe",
    "Pool",
    "generate",
    "held_out",
    "open_pool",
    "write_davis",
]

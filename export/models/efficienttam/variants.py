"""The official variants, our own small one, and what an export may change of them; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from phoneward.errors import InvalidSpec

Pooling = Literal["logits", "keys", "older"]
Trunk = Literal["vit", "lite0"]

CHANNELS = 256
MEMORY_CHANNELS = 64
STRIDE = 16
POINTER_SLOTS = 16
POINT_SLOTS = 16
TEMPORAL_CODES = 7
MOST_SLOTS = 16
# a pool of keys is POOL x POOL of them
POOL = 2
POOLED = POOL * POOL
# slots that `older` leaves whole: of the frame where the object was shown, and the newest
WHOLE = 2


@dataclass(frozen=True)
class Widths:
    """How wide and how deep the parts behind the trunk are; the defaults are the official ones.

    Attributes:
        channels: of the features, the prompts' tokens and the object pointers.
        memory: channels of a memory.
        feed_forward: inner width of the transformers' MLPs.
        layers: of memory attention.
        fine: whether the mask decoder also sees the image at strides 4 and 8, as SAM 2's does.
    """

    channels: int = CHANNELS
    memory: int = MEMORY_CHANNELS
    feed_forward: int = 2048
    layers: int = 4
    fine: bool = False

    @property
    def quarter(self) -> int:
        """Channels of the decoder's maps at stride 4."""
        return self.channels // 8

    @property
    def eighth(self) -> int:
        """Channels of the decoder's maps at stride 8."""
        return self.channels // 4

    @property
    def features(self) -> int:
        """Channels of a token: those of stride 16, then strides 4 and 8 folded into places."""
        folded = 16 * self.quarter + 4 * self.eighth
        return self.channels + self.fine * folded


OFFICIAL = Widths()


@dataclass(frozen=True)
class Variant:
    """One configuration.

    `trunk` is a plain vision transformer of `embedding` channels and `heads` heads, or
    EfficientNet-Lite0, which has neither (0 and 0). `pooling` says how cross-attention treats the
    memory's keys once more than one frame is remembered: not at all, or averaged 2 x 2 with ln 4
    added to the logits (paper, equation 5; official `_1`) or to the keys (equation 6; official
    `_2`). `older` does as `logits`, but only to the slots after the first two, and always.
    `slots` is the number of frames the memory bank holds; `pointers` says whether object pointers
    are read.
    """

    name: str
    embedding: int
    heads: int
    image: int
    pooling: Pooling | None = None
    slots: int = 7
    pointers: bool = True
    trunk: Trunk = "vit"
    widths: Widths = OFFICIAL

    def __post_init__(self) -> None:
        """Raise `InvalidSpec` where the decoder is to see levels that the trunk has not."""
        if self.widths.fine and self.trunk == "vit":
            raise InvalidSpec(f"{self.name}: a plain vision transformer has no finer levels")

    @property
    def grid(self) -> int:
        """Tokens along a side of the image."""
        return self.image // STRIDE

    @property
    def tokens(self) -> int:
        """Tokens of the image."""
        return self.grid**2


NANO = Variant(
    "efficienttam_nano",
    embedding=0,
    heads=0,
    image=256,
    pooling="older",
    trunk="lite0",
    widths=Widths(channels=128, memory=64, feed_forward=320, layers=2, fine=True),
)
"""Trained by Phoneward, and part of it."""

_SIZES = {"ti": (192, 3, 17_866_274), "s": (384, 6, 34_056_098)}
_KINDS: dict[str, tuple[int, Pooling | None]] = {
    "": (1024, None),
    "_1": (1024, "logits"),
    "_2": (1024, "keys"),
    "_512x512": (512, None),
}

VARIANTS = {
    f"efficienttam_{size}{kind}": Variant(
        f"efficienttam_{size}{kind}", embedding, heads, image, pooling
    )
    for size, (embedding, heads, _) in _SIZES.items()
    for kind, (image, pooling) in _KINDS.items()
} | {NANO.name: NANO}
PARAMETERS = {
    f"efficienttam_{size}{kind}": parameters
    for size, (_, _, parameters) in _SIZES.items()
    for kind in _KINDS
} | {NANO.name: 2_479_426}

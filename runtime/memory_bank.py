"""What a tracker remembers of one object, and the fixed-size arrays that `propagate` reads.

    frame t, forward:   slot 0, 1, ..    conditioning frames, age 0
                        the slots after  t-1, t-2, .. t-6, as far as they exist, age 1 to 6
                        the last slots   empty, age -1
                        (of one slot only, a conditioning frame has it)

    pointers            those of the conditioning frames up to t, then of t-1, t-2, .. t-15

In reverse t+1, t+2, .. take the place of t-1, t-2, ... The rules are those of the official
`EfficientTAMBase._prepare_memory_conditioned_features`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phoneward.errors import InvalidSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.spec import TensorSpec

OLDEST = 6
"""The official model has a temporal code for frames up to six steps back."""
POINTER_REACH = 15
"""... and reads pointers of frames up to fifteen steps back."""
CONDITIONING, EMPTY = 0, -1
"""Ages that are no distance."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One object on one frame.

    Attributes:
        memory: uint16 (C, T), the upper halves of float32: bfloat16, as the official predictor
            stores it.
        pointer: float32 (1, P), 256 values but where a variant has fewer.
        logits: float32 (1, 1, 4g, 4g).
        score: logit of the object being in sight.
        iou: the model's estimate of the mask's quality, 0 to 1.
        reverse: was the frame tracked in reverse?
        clicks: float32 (n, 3), the points that a user gave so far, x and y in pixels of the
            model's image and label; None on a frame that nobody prompted.
    """

    memory: NDArray[np.uint16]
    pointer: NDArray[np.float32]
    logits: NDArray[np.float32]
    score: float
    iou: float
    reverse: bool
    clicks: NDArray[np.float32] | None


@dataclass(frozen=True)
class BankShape:
    """How large the arrays are; `pointers` is 0 for a model that reads no object pointers."""

    slots: int
    channels: int
    tokens: int
    pointers: int
    pointer_width: int
    mask_side: int

    @classmethod
    def of(cls, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> BankShape:
        """Read it off the tensors of the `propagate` stage."""
        shapes = {spec.name: spec.shape for spec in (*outputs, *inputs)}
        slots = shapes["memory_age"][1]
        _, channels, columns = shapes["memory"]
        _, pointers, width = shapes.get("pointers", (1, 0, 0))
        return cls(slots, channels, columns // slots, pointers, width, shapes["masks"][-1])


@dataclass(frozen=True)
class TrackerConfig:
    """How much of each object is remembered, which bounds memory on a stream of any length.

    At most `conditioning` conditioning frames: one more, and the farthest from it is forgotten.
    Of the others those within `history` frames of the one that is tracked; 15 is what the
    pointers can reach. A frame beyond counts as never tracked: a prompt on it makes it a
    conditioning frame, where it would have corrected it.

    Raises:
        InvalidSpec: less than one conditioning frame, or less history than `propagate` reads.
    """

    conditioning: int = 32
    history: int = 15

    def __post_init__(self) -> None:
        if self.conditioning < 1 or self.history < POINTER_REACH:
            raise InvalidSpec(
                f"a tracker keeps at least 1 conditioning frame and {POINTER_REACH} others, "
                f"not {self.conditioning} and {self.history}"
            )


class MemoryBank:
    """The frames of one object."""

    def __init__(self, shape: BankShape, config: TrackerConfig) -> None:
        self.shape, self.config = shape, config
        self._conditioning: dict[int, Entry] = {}
        self._tracked: dict[int, Entry] = {}

    def get(self, index: int) -> Entry | None:
        """Return what is remembered of a frame."""
        return self._conditioning.get(index, self._tracked.get(index))

    def is_conditioning(self, index: int) -> bool:
        """Say whether a frame was prompted before it was ever tracked."""
        return index in self._conditioning

    def condition(self, index: int, entry: Entry) -> None:
        """Remember a conditioning frame."""
        self._conditioning[index] = entry
        if len(self._conditioning) > self.config.conditioning:
            del self._conditioning[max(self._conditioning, key=lambda t: (abs(t - index), -t))]

    def track(self, index: int, entry: Entry) -> None:
        """Remember a frame that was tracked (and perhaps corrected), and forget what is far."""
        self._tracked[index] = entry
        for far in [t for t in self._tracked if abs(t - index) > self.config.history]:
            del self._tracked[far]

    def inputs(self, index: int, *, reverse: bool) -> dict[str, NDArray[np.float32]]:
        """Assemble what `propagate` reads besides the features, to track frame `index`.

        Returns `memory` (1, C, slots * T), `memory_age` (1, slots) and, if the model reads them,
        `pointers` (1, n, P) and `pointer_valid` (1, n).
        """
        shape = self.shape
        # one slot is left to the newest frame, unless there is only one: what the object is comes
        # before where it was, of which pointers, if the model reads them, still tell
        most = max(1, shape.slots - 1)
        chosen = closest(index, self._conditioning, most, reverse=reverse)
        memory = np.zeros((shape.channels, shape.slots, shape.tokens), np.float32)
        ages = np.full((1, shape.slots), EMPTY, np.float32)
        for slot, (age, entry) in enumerate(self._remembered(index, chosen, reverse)):
            memory[:, slot] = widen(entry.memory)
            ages[0, slot] = age
        arrays = {"memory": memory.reshape(1, shape.channels, -1), "memory_age": ages}
        if shape.pointers:
            pointers = np.zeros((1, shape.pointers, shape.pointer_width), np.float32)
            valid = np.zeros((1, shape.pointers), np.float32)
            for place, entry in enumerate(self._pointed(index, chosen, reverse)):
                pointers[0, place], valid[0, place] = entry.pointer[0], 1
            arrays |= {"pointers": pointers, "pointer_valid": valid}
        return arrays

    def _remembered(self, index: int, chosen: list[int], reverse: bool) -> list[tuple[int, Entry]]:
        conditioning = [(CONDITIONING, self._conditioning[t]) for t in chosen]
        recent = self._recent(index, chosen, OLDEST, reverse)
        return [*conditioning, *recent][: self.shape.slots]

    def _pointed(self, index: int, chosen: list[int], reverse: bool) -> list[Entry]:
        ahead = [t for t in chosen if (t >= index if reverse else t <= index)]
        recent = self._recent(index, chosen, POINTER_REACH, reverse)
        entries = [self._conditioning[t] for t in ahead] + [entry for _, entry in recent]
        return entries[: self.shape.pointers]

    def _recent(
        self, index: int, chosen: list[int], reach: int, reverse: bool
    ) -> Iterator[tuple[int, Entry]]:
        """Age and entry of the frames just tracked, the newest first."""
        for age in range(1, reach + 1):
            t = index + age if reverse else index - age
            entry = self.get(t)
            if entry is not None and t not in chosen:
                yield age, entry

    def entries(self) -> Iterator[tuple[int, bool, Entry]]:
        """Yield index, "is it a conditioning frame?" and entry of all frames."""
        for index, entry in sorted(self._conditioning.items()):
            yield index, True, entry
        for index, entry in sorted(self._tracked.items()):
            yield index, False, entry

    @classmethod
    def of(
        cls, entries: Iterable[tuple[int, bool, Entry]], shape: BankShape, config: TrackerConfig
    ) -> MemoryBank:
        """Make a bank of what `entries` of another one yielded."""
        bank = cls(shape, config)
        for index, conditioning, entry in entries:
            (bank._conditioning if conditioning else bank._tracked)[index] = entry
        return bank


def closest(index: int, frames: Collection[int], most: int, *, reverse: bool = False) -> list[int]:
    """Return at most `most` of the frames, ascending.

    If there are more: the closest one before `index`, the closest one from `index` on, and then
    whichever are closest (official `select_closest_cond_frames`); of equally close ones the
    earlier. A single one is the one that tracking came past last: the closest before `index` or,
    in reverse, from `index` on; only where there is none such, the closest on the other side.
    """
    if len(frames) <= most:
        return sorted(frames)
    before = max((t for t in frames if t < index), default=None)
    after = min((t for t in frames if t >= index), default=None)
    passed_first = (after, before) if reverse else (before, after)
    first = [t for t in passed_first if t is not None]
    others = sorted((abs(t - index), t) for t in frames if t not in first)
    return sorted([*first, *(t for _, t in others)][:most])


def narrow(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round finite float32 to bfloat16, to nearest and ties to even; returns the upper halves."""
    bits = values.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def widen(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the float32 values of upper halves."""
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)

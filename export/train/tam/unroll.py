"""EfficientTAM's stages, one clip after the other frame by frame, for many objects at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from phoneward.export.models.efficienttam.stages import (
    Memorize,
    Prompt,
    Propagate,
    as_map,
    blend,
)
from phoneward.export.models.efficienttam.variants import POINTER_SLOTS
from phoneward.export.train.tam.batch import SHOWN

if TYPE_CHECKING:
    from phoneward.export.models.efficienttam.mask_decoder import Candidates
    from phoneward.export.models.efficienttam.model import EfficientTAM
    from phoneward.export.train.tam.batch import Batch


@dataclass(frozen=True)
class Guess:
    """What the model said of one frame, before it chose.

    Attributes:
        logits: (N, K, 4g, 4g), candidates of which the best one counts.
        ious: (N, K), how good it thinks they are.
        score: (N, 1), above 0 where it believes the object to be in sight.
        frame: the number of the frame.
        weights: (N,), how much each object's guess counts.
        corrected: was an error clicked before?
    """

    logits: Tensor
    ious: Tensor
    score: Tensor
    frame: int
    weights: Tensor
    corrected: bool = False


@dataclass
class _Memory:
    """What is remembered of the frames so far."""

    entries: list[Tensor] = field(default_factory=list)
    pointers: list[Tensor] = field(default_factory=list)

    def arrays(self, slots: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The memory bank as `propagate` reads it: the first frame, then the newest ones."""
        first, rest = self.entries[:1], self.entries[1:][::-1][: slots - 1]
        kept = [*first, *rest]
        count, device = len(first[0]), first[0].device
        empty = slots - len(kept)
        memory = torch.cat([*kept, *[torch.zeros_like(first[0])] * empty], dim=2)
        ages = [*range(len(kept)), *[-1] * empty]
        pointers = [*self.pointers[:1], *self.pointers[1:][::-1]][:POINTER_SLOTS]
        filled = len(pointers)
        pointers += [torch.zeros_like(pointers[0])] * (POINTER_SLOTS - filled)
        valid = (torch.arange(POINTER_SLOTS, device=device) < filled).float()
        return (
            memory,
            torch.tensor(ages, dtype=torch.float32, device=device).expand(count, -1),
            torch.stack(pointers, dim=1),
            valid.expand(count, -1),
        )


class Unroll:
    """One pass over a batch; made anew for each step, as the stages freeze what they read."""

    def __init__(self, model: EfficientTAM, trunk: Callable[[Tensor], Tensor] | None) -> None:
        """Take the model, and what stands for its trunk where that keeps its weights."""
        self.model, self.trunk = model, trunk
        self.prompt, self.propagate = Prompt(model), Propagate(model)
        self.memorize = Memorize(model)
        self.heads = self.prompt.heads

    def features(self, frames: Tensor) -> Tensor:
        """Encode normalised frames (N, 3, S, S) to features (N, T, F)."""
        encoder = self.model.image_encoder
        if self.trunk is not None:
            return encoder.features(self.trunk(frames))
        positions = encoder.trunk.positions(self.model.variant.grid)
        return cast(Tensor, encoder(frames, positions))

    def __call__(
        self, batch: Batch, frames: Tensor, truth: Tensor, *, correct: bool
    ) -> list[Guess]:
        """Follow every object through its clip.

        Args:
            batch: where the prompts and the owners of the objects are.
            frames: (C, T, 3, S, S), normalised.
            truth: (N, T, S, S) of 0 and 1.
            correct: click once more on the first frame, and on the last.

        Returns:
            Of the first frame two, the candidate for unambiguous prompts and those that compete,
            and one that was corrected if asked for; then one of each frame; then one of the last
            that was corrected, if asked for.
        """
        steps = frames.shape[1]
        encoded = self.features(frames.flatten(0, 1)).unflatten(0, (-1, steps))
        owners = torch.from_numpy(batch.clips).to(truth.device)
        features = [each[owners] for each in encoded.unbind(1)]
        memory, guesses = _Memory(), []
        guesses += self._shown(batch, features[0], truth[:, 0], memory, correct=correct)
        for t in range(1, steps):
            conditioned = self.propagate.read(features[t], *memory.arrays(self.model.variant.slots))
            found = self.propagate.candidates(conditioned)
            logits = self.heads.logits(found.kernels[:, 1:], found)
            everything = torch.ones(len(truth))
            guesses.append(Guess(logits, found.ious[:, 1:], found.score, t, everything))
            masks, _, token = self.heads.best(found)
            if correct and t == steps - 1:
                kept, _ = self.heads.finish(masks, token, found.score.detach())
                guesses.append(self._corrected(conditioned, kept, truth[:, t], t))
            elif t < steps - 1:
                # what it believes, right or wrong, is what a tracker remembers
                kept, pointer = self.heads.finish(masks, token, found.score.detach())
                self._remember(memory, features[t], kept, pointer, 0.0)
        return guesses

    def _remember(
        self, memory: _Memory, features: Tensor, masks: Tensor, pointer: Tensor, prompted: float
    ) -> None:
        switch = torch.full((len(masks), 1), prompted)
        memory.entries.append(self.memorize(features, masks, switch))
        memory.pointers.append(pointer)

    def _shown(
        self, batch: Batch, features: Tensor, truth: Tensor, memory: _Memory, *, correct: bool
    ) -> list[Guess]:
        """The first frame: prompts, perhaps a correction; what comes of it is remembered."""
        count = len(truth)
        device = truth.device
        masked = torch.from_numpy(batch.has_mask).to(device)
        mask = truth.unsqueeze(1)
        points = torch.from_numpy(batch.points).to(device)
        labels = torch.from_numpy(batch.labels).to(device)
        previous = torch.zeros(count, 1, self.heads.side, self.heads.side)
        on, off = torch.ones(count, 1), torch.zeros(count, 1)
        found, sole = self.prompt.candidates(
            features, points, labels, mask, previous, (on, masked, off)
        )
        guesses = self._prompted(found, sole * (1 - masked))
        masks, _, token = self.prompt.choose(found, sole * (1 - masked))
        if correct:
            points, labels = clicked(points, labels, masks.detach(), truth)
            said = masks.detach()
            found, _ = self.prompt.candidates(
                features, points, labels, mask, said, (on, masked, 1 - masked)
            )
            guesses.append(self._only(found, 1 - masked[:, 0], corrected=True))
            again, _, renewed = self.prompt.choose(found, off)
            # a mask is not clicked
            masks = blend(as_map(masked), masks, again)
            token = blend(masked, token, renewed)
        masks = blend(as_map(masked), self.prompt.logits_of(mask), masks)
        masks, pointer = self.heads.finish(masks, token, on)
        self._remember(memory, features, masks, pointer, 1.0)
        return guesses

    def _prompted(self, found: Candidates, ambiguous: Tensor) -> list[Guess]:
        """The candidate for unambiguous prompts counts everywhere, the three for ambiguous ones."""
        share = ambiguous[:, 0]
        three = self.heads.logits(found.kernels[:, 1:], found)
        return [
            self._only(found, 1 - 0.5 * share),
            Guess(three, found.ious[:, 1:], found.score, 0, share),
        ]

    def _only(self, found: Candidates, weights: Tensor, *, corrected: bool = False) -> Guess:
        """The candidate for unambiguous prompts."""
        logits = self.heads.logits(found.kernels[:, :1], found)
        return Guess(logits, found.ious[:, :1], found.score, 0, weights, corrected)

    def _corrected(self, conditioned: Tensor, masks: Tensor, truth: Tensor, frame: int) -> Guess:
        """Click on an error of a tracked frame."""
        count = len(truth)
        points, labels = torch.zeros(count, 2, 2), torch.full((count, 2), -2.0)
        points, labels = clicked(points, labels, masks.detach(), truth, slot=0)
        on, off = torch.ones(count, 1), torch.zeros(count, 1)
        nothing = torch.zeros(count, 1, *truth.shape[1:])
        found, _ = self.prompt.candidates(
            conditioned, points, labels, nothing, masks.detach(), (off, off, on)
        )
        # one point: the three compete
        logits = self.heads.logits(found.kernels[:, 1:], found)
        seen = truth.amax((1, 2))
        return Guess(logits, found.ious[:, 1:], found.score, frame, seen, corrected=True)


def clicked(
    points: Tensor, labels: Tensor, logits: Tensor, truth: Tensor, slot: int = SHOWN
) -> tuple[Tensor, Tensor]:
    """Add a click in the middle of any pixel where a mask is wrong; positive on the object."""
    side = truth.shape[-1]
    said = F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)[:, 0] > 0
    wrong = (said != (truth > 0.5)).flatten(1).float()
    # a mask without error is clicked anywhere
    wrong = wrong + (wrong.sum(1, keepdim=True) == 0).float()
    chosen = torch.multinomial(wrong, 1)
    points, labels = points.clone(), labels.clone()
    points[:, slot] = torch.cat([chosen % side, chosen // side], dim=1) + 0.5
    labels[:, slot] = truth.flatten(1).gather(1, chosen)[:, 0].round()
    return points, labels


def normalised(frames: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Map uint8 (C, T, S, S, 3) to float32 (C, T, 3, S, S)."""
    scale = torch.tensor(std) * 255
    shift = torch.tensor(mean) / torch.tensor(std)
    return (frames.float() / scale - shift).permute(0, 1, 4, 2, 3)

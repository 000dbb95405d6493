"""SAM 2's losses (arXiv 2408.00714, appendix D.2.1), and one for outlines.

SAM 2's are focal, dice, IoU and presence, and the focal loss counts twenty times as much as the
others. From a random start that much of it ends in empty masks, so that how much is up to the
caller. The outlines' is what J and F are lost by once an object is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from phoneward.export.train.tam.unroll import Guess

_ALPHA, _GAMMA = 0.25, 2.0
_NEAR = 5  # side of the square about a pixel in which an outline is near


@dataclass(frozen=True)
class LossWeights:
    """How much the losses of a mask count beside dice."""

    focal: float
    outline: float


def loss_of(guesses: list[Guess], truth: Tensor, weights: LossWeights) -> Tensor:
    """The loss of all guesses of a batch; `truth` is (N, T, S, S) of 0 and 1.

    Masks are compared at twice the side of the model's logits. Of candidates that compete the one
    with the least mask loss learns its mask; all learn how good they are. A frame where the object
    is out of sight has no mask to learn.
    """
    total = torch.zeros(())
    count = torch.zeros(())
    for guess in guesses:
        side = 2 * guess.logits.shape[-1]
        target = F.interpolate(truth[:, guess.frame : guess.frame + 1], (side, side), mode="area")
        # what covers half a pixel nowhere is out of sight
        seen = (target.amax((1, 2, 3)) > 0.5).float()
        logits = F.interpolate(guess.logits, (side, side), mode="bilinear", align_corners=False)
        masks = weights.focal * focal(logits, target) + dice(logits, target)
        if weights.outline:
            masks = masks + weights.outline * outline(logits, target)
        best = masks.min(1).values
        quality = (guess.ious - iou(logits, target)).abs().mean(1)
        presence = F.binary_cross_entropy_with_logits(guess.score[:, 0], seen, reduction="none")
        total = total + (guess.weights * (seen * (best + quality) + presence)).sum()
        count = count + guess.weights.sum()
    return total / count


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """Focal loss (N, K) of (N, K, H, W) and (N, 1, H, W), arXiv 1708.02002, a mean over pixels."""
    target = target.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = logits.sigmoid()
    certainty = p * target + (1 - p) * (1 - target)
    alpha = _ALPHA * target + (1 - _ALPHA) * (1 - target)
    return (alpha * (1 - certainty) ** _GAMMA * entropy).mean((2, 3))


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the Dice coefficient (N, K) of (N, K, H, W) and (N, 1, H, W), smoothed a pixel."""
    p = logits.sigmoid()
    both = (p * target).sum((2, 3))
    return 1 - (2 * both + 1) / (p.sum((2, 3)) + target.sum((2, 3)) + 1)


def outline(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy (N, K) of (N, K, H, W) against (N, 1, H, W), a mean of what is near an outline.

    Of a target without outline it is 0.
    """
    around = _NEAR // 2
    most = F.max_pool2d(target, _NEAR, 1, around)
    least = -F.max_pool2d(-target, _NEAR, 1, around)
    near = (most - least > 0.5).float()
    entropy = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    return (near * entropy).sum((2, 3)) / near.sum((2, 3)).clamp(min=1)


def iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU (N, K) of what is above 0 with what is above a half; 1 where both are empty."""
    with torch.no_grad():
        said, true = logits > 0, target > 0.5
        union = (said | true).sum((2, 3))
        both = (said & true).sum((2, 3))
        return torch.where(
            union > 0, both / union.clamp(min=1), torch.ones_like(both, dtype=torch.float32)
        )

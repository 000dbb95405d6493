"""The four graphs of EfficientTAM, of fixed shape, each a module over parts of the model.

    encode      a frame to features
    prompt      features and prompts on this frame to a mask
    propagate   features and what is remembered to a mask
    memorize    features and the mask to a memory

What depends on data is inside: which candidate is chosen, absence, the mask that is remembered.
Shapes, with T tokens on a grid of g x g: `specs.py`. An artifact takes one frame, a training
N at once. Constants are buffers that stay part of autograd's graph: a training, whose parameters
change, makes the modules anew for each step.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from phoneward.errors import TensorMismatch
from phoneward.export.models.efficienttam.layers import (
    EMPTY,
    resize_matrix,
    to_tokens,
)
from phoneward.export.models.efficienttam.mask_decoder import OWN_TOKENS, Candidates, Codes
from phoneward.export.models.efficienttam.memory_attention import MemoryReader
from phoneward.export.models.efficienttam.model import EfficientTAM
from phoneward.export.models.efficienttam.variants import Widths

ABSENT = -1024.0
"""Logit of every pixel of an object that is not in sight."""
_MASK_STRIDE = 4
_MOST_LOGIT = 32.0
_GAIN, _OFFSET = 20.0, -10.0  # from a mask of 0 and 1 to what stands for its logits
_STABILITY_MARGIN, _STABLE = 0.05, 0.98
_UNUSED = -2.0


class Encode(nn.Module):
    """A normalised image (N, 3, S, S) to features (N, T, F)."""

    def __init__(self, model: EfficientTAM) -> None:
        super().__init__()
        self.encoder = model.image_encoder
        positions = model.image_encoder.trunk.positions(model.variant.grid)
        self.register_buffer("positions", positions)

    def forward(self, image: Tensor) -> Tensor:
        """Encode a frame."""
        return cast(Tensor, self.encoder(image, self.positions))


class Heads(nn.Module):
    """From the decoder's candidates to what the host gets: logits, IoU, score, pointer."""

    def __init__(self, model: EfficientTAM) -> None:
        super().__init__()
        self.side = model.variant.grid * _MASK_STRIDE
        self.pointer = model.obj_ptr_proj
        self.register_buffer("no_pointer", model.no_obj_ptr.clone())

    def best(self, found: Candidates) -> tuple[Tensor, Tensor, Tensor]:
        """Choose among the last three by IoU; returns logits, IoU and token."""
        share = _first_best(found.ious[:, 1:])
        kernel = (share.unsqueeze(-1) * found.kernels[:, 1:]).sum(1, keepdim=True)
        token = (share.unsqueeze(-1) * found.tokens[:, 1:]).sum(1)
        iou = (share * found.ious[:, 1:]).sum(1, keepdim=True)
        return self.logits(kernel, found), iou, token

    def logits(self, kernel: Tensor, found: Candidates) -> Tensor:
        """Mask logits (N, K, 4g, 4g) of kernels (N, K, C / 8)."""
        return torch.bmm(kernel, found.upscaled).unflatten(2, (self.side, self.side))

    def finish(self, logits: Tensor, token: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        """Let an object that is out of sight have no mask and no pointer of its own."""
        seen = (score > 0).to(score.dtype)
        masks = logits * as_map(seen) + as_map(1 - seen) * ABSENT
        return masks, self.seen_pointer(self.pointer(token), seen)

    def seen_pointer(self, pointer: Tensor, seen: Tensor) -> Tensor:
        """The pointer (N, C), or the one that stands for absence where `seen` (N, 1) is 0."""
        return seen * pointer + (1 - seen) * cast(Tensor, self.no_pointer)


def _first_best(ious: Tensor) -> Tensor:
    """(N, 3) of 0 and 1: the highest, the first of equals."""
    a, b, c = ious.split(1, dim=1)
    first = (a >= torch.maximum(b, c)).to(ious.dtype)
    second = (b >= c).to(ious.dtype) * (1 - first)
    return torch.cat((first, second, 1 - first - second), dim=1)


class Prompt(nn.Module):
    """Prompts on a frame to its mask.

    One point gives the best of three candidates; two points and more (a box is two) the
    unambiguous candidate, or the best of three where that one is unstable; a mask is its own
    answer, from which only the pointer is derived.
    """

    def __init__(self, model: EfficientTAM) -> None:
        super().__init__()
        variant = model.variant
        self.grid, self.image = variant.grid, variant.image
        self.widths = variant.widths
        self.encoder, self.decoder = model.sam_prompt_encoder, model.sam_mask_decoder
        self.mask_downsample = model.mask_downsample
        self.heads = Heads(model)
        self.register_buffer("no_memory", model.no_mem_embed.clone())
        self.register_buffer("places", self.encoder.dense_positions(variant.grid))
        self.register_buffer("no_mask", self.encoder.no_mask(variant.grid).clone())
        quarter = resize_matrix(variant.image // 4, variant.image, antialias=True)
        self.register_buffer("quarter", quarter)

    def forward(
        self,
        features: Tensor,
        points: Tensor,
        labels: Tensor,
        mask: Tensor,
        previous: Tensor,
        initial: Tensor,
        has_mask: Tensor,
        has_previous: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return masks, IoU, score and pointer."""
        switches = initial, has_mask, has_previous
        found, sole_point = self.candidates(features, points, labels, mask, previous, switches)
        logits, iou, token = self.choose(found, sole_point * (1 - has_mask))
        masks, pointer = self.heads.finish(logits, token, found.score)
        return self._given(mask, has_mask, (masks, iou, found.score, pointer))

    def choose(self, found: Candidates, ambiguous: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, IoU and token of the answer; `ambiguous` (N, 1) is of 0 and 1."""
        best, best_iou, best_token = self.heads.best(found)
        sole = self.heads.logits(found.kernels[:, :1], found)
        stable = _stability(sole)
        use_best = torch.maximum(ambiguous, 1 - stable)
        return (
            blend(as_map(use_best), best, sole),
            blend(use_best, best_iou, found.ious[:, :1]),
            blend(ambiguous, best_token, found.tokens[:, 0]),
        )

    def candidates(
        self,
        features: Tensor,
        points: Tensor,
        labels: Tensor,
        mask: Tensor,
        previous: Tensor,
        switches: tuple[Tensor, Tensor, Tensor],
    ) -> tuple[Candidates, Tensor]:
        """Return the candidates, and 1 or 0 (N, 1): at most one real point?"""
        initial, has_mask, has_previous = switches
        prompts = points.shape[0]
        end = torch.full((prompts, 1), -1.0, dtype=labels.dtype)
        labels = torch.cat((labels, end), dim=1)
        points = torch.cat((points, torch.zeros(prompts, 1, 2, dtype=points.dtype)), dim=1)
        tokens = self.encoder.embed_points(points, labels, self.image)
        tokens = torch.cat((self.decoder.own_tokens().expand(prompts, -1, -1), tokens), dim=1)
        unused = (labels == _UNUSED).to(tokens.dtype) * EMPTY
        bias = torch.cat((torch.zeros(prompts, OWN_TOKENS, dtype=unused.dtype), unused), dim=1)
        known = previous.clamp(-_MOST_LOGIT, _MOST_LOGIT) * as_map(has_previous)
        shown = self.mask_downsample(mask) * as_map(has_mask)
        dense = blend(
            as_map(torch.maximum(has_mask, has_previous)),
            self.encoder.embed_mask(known + shown),
            cast(Tensor, self.no_mask),
        )
        first = (initial * (1 - has_mask)).unsqueeze(-1)
        coarse, fine = split_levels(features, self.widths)
        image = coarse + first * cast(Tensor, self.no_memory) + to_tokens(dense)
        codes = Codes(tokens, cast(Tensor, self.places), bias.unsqueeze(1))
        real = (labels >= 0).to(tokens.dtype).sum(1, keepdim=True)
        return self.decoder(image, codes, fine, self.grid), torch.clamp(2 - real, 0, 1)

    def logits_of(self, mask: Tensor) -> Tensor:
        """Logits (N, 1, 4g, 4g) that stand for a mask (N, 1, S, S) of 0 and 1."""
        quarter = cast(Tensor, self.quarter)
        return quarter @ (_GAIN * mask + _OFFSET) @ quarter.transpose(0, 1)

    def _given(
        self, mask: Tensor, has_mask: Tensor, found: tuple[Tensor, Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Put a mask prompt in the place of what was found."""
        masks, iou, score, pointer = found
        small = self.logits_of(mask)
        seen = (mask.amax((2, 3)) > 0).to(mask.dtype)
        return (
            blend(as_map(has_mask), small, masks),
            blend(has_mask, torch.ones_like(iou), iou),
            blend(has_mask, _GAIN * seen + _OFFSET, score),
            blend(has_mask, self.heads.seen_pointer(pointer, seen), pointer),
        )


def split_levels(features: Tensor, widths: Widths) -> tuple[Tensor, Tensor | None]:
    """What features (N, T, F) have of stride 16 (N, T, C), and of finer levels if any."""
    if features.shape[2] != widths.features:
        raise TensorMismatch(f"features of {features.shape[2]} channels, not {widths.features}")
    if not widths.fine:
        return features, None
    return features[..., : widths.channels], features[..., widths.channels :]


def as_map(switch: Tensor) -> Tensor:
    """(N, 1) as (N, 1, 1, 1)."""
    return switch.unsqueeze(-1).unsqueeze(-1)


def blend(share: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return `one` where `share` is 1, `other` where it is 0."""
    return share * one + (1 - share) * other


def _stability(logits: Tensor) -> Tensor:
    """(N, 1) of 0 and 1: is the mask's area nearly the same at two thresholds?"""
    # shares of rows, then of the mask: half precision holds no count of pixels
    inner = (logits > _STABILITY_MARGIN).to(logits.dtype).mean(3).mean(2)
    outer = (logits > -_STABILITY_MARGIN).to(logits.dtype).mean(3).mean(2)
    return (inner >= _STABLE * outer).to(logits.dtype)


class Propagate(nn.Module):
    """Features and the memory bank to a mask; also returns the conditioned features.

    The decoder sees two tokens that stand for "not a point", as in the official model.
    """

    def __init__(self, model: EfficientTAM) -> None:
        super().__init__()
        variant, encoder = model.variant, model.sam_prompt_encoder
        self.grid, self.widths = variant.grid, variant.widths
        self.reader = MemoryReader(variant, model.memory_attention, model.maskmem_tpos_enc)
        self.decoder = model.sam_mask_decoder
        self.heads = Heads(model)
        nothing = encoder.not_a_point_embed.weight.expand(1, 2, -1)
        tokens = torch.cat((self.decoder.own_tokens(), nothing), dim=1)
        self.register_buffer("tokens", tokens)
        self.register_buffer("places", encoder.dense_positions(variant.grid))
        self.register_buffer("no_mask", encoder.no_mask_embed.weight.clone())

    def forward(
        self, features: Tensor, memory: Tensor, memory_age: Tensor, *pointers: Tensor
    ) -> tuple[Tensor, ...]:
        """Return masks, IoU, score, pointer and conditioned features."""
        conditioned = self.read(features, memory, memory_age, *pointers)
        found = self.candidates(conditioned)
        logits, iou, token = self.heads.best(found)
        masks, pointer = self.heads.finish(logits, token, found.score)
        return masks, iou, found.score, pointer, conditioned

    def read(self, features: Tensor, *bank: Tensor) -> Tensor:
        """Condition features (N, T, F) on the memory bank; the finer levels stay as they are."""
        coarse, fine = split_levels(features, self.widths)
        conditioned = cast(Tensor, self.reader(coarse, *bank))
        return conditioned if fine is None else torch.cat((conditioned, fine), dim=2)

    def candidates(self, conditioned: Tensor) -> Candidates:
        """Decode conditioned features (N, T, F) without a prompt."""
        coarse, fine = split_levels(conditioned, self.widths)
        image = coarse + cast(Tensor, self.no_mask)
        tokens = cast(Tensor, self.tokens).expand(image.shape[0], -1, -1)
        codes = Codes(tokens, cast(Tensor, self.places))
        return cast(Candidates, self.decoder(image, codes, fine, self.grid))


class Memorize(nn.Module):
    """Features and mask logits to a memory (N, M, T)."""

    def __init__(self, model: EfficientTAM) -> None:
        super().__init__()
        self.encoder, self.widths = model.memory_encoder, model.variant.widths
        side = model.variant.grid * _MASK_STRIDE
        larger = resize_matrix(model.variant.image, side, antialias=False)
        # halved and doubled, which is exact: the TFLite converter would make one constant of equal
        # ones, and ai-edge-quantizer 0.10 fails over a constant that two operators share
        self.register_buffer("larger", larger / 2)
        self.register_buffer("wider", larger.transpose(0, 1) * 2)

    def forward(self, features: Tensor, masks: Tensor, prompted: Tensor) -> Tensor:
        """Remember a frame; the mask of a prompted one counts as certain."""
        logits = self.larger @ (masks.flatten(0, 1) @ cast(Tensor, self.wider))
        certain = (logits > 0).to(logits.dtype)
        mask = _GAIN * blend(prompted.unsqueeze(-1), certain, logits.sigmoid()) + _OFFSET
        coarse, _ = split_levels(features, self.widths)
        return cast(Tensor, self.encoder(coarse, mask.unsqueeze(1)))

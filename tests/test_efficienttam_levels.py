"""Finer levels of the image on their way from the trunk to the mask decoder."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from phoneward.errors import InvalidSpec, TensorMismatch
from phoneward.export.models.efficienttam.image_encoder import FineLevels
from phoneward.export.models.efficienttam.lite0_trunk import Lite0Trunk
from phoneward.export.models.efficienttam.mask_decoder import Codes, MaskDecoder
from phoneward.export.models.efficienttam.model import EfficientTAM
from phoneward.export.models.efficienttam.stages import Memorize, Propagate
from phoneward.export.models.efficienttam.variants import NANO, POINTER_SLOTS, Variant

SMALL = replace(NANO, image=64, slots=2)
WIDTHS = NANO.widths


def test_the_trunk_hands_out_what_its_blocks_made() -> None:
    torch.manual_seed(0)
    trunk = Lite0Trunk()
    made: dict[int, Tensor] = {}
    for stage in (1, 2, 4):
        trunk.blocks[stage].register_forward_hook(
            lambda module, given, found, stage=stage: made.update({stage: found})
        )
    quarter, eighth, coarse = trunk.levels(trunk(torch.rand(2, 3, 64, 96), trunk.positions(4)))
    assert made[1].shape == (2, 24, 16, 24)
    torch.testing.assert_close(F.pixel_shuffle(quarter, 4), made[1])
    torch.testing.assert_close(F.pixel_shuffle(eighth, 2), made[2])
    torch.testing.assert_close(coarse, made[4])


def test_folded_levels_are_projected_place_by_place() -> None:
    torch.manual_seed(0)
    levels = FineLevels((24, 40), WIDTHS)
    quarter, eighth = torch.randn(2, 24, 16, 24), torch.randn(2, 40, 8, 12)
    found = levels(F.pixel_unshuffle(quarter, 4), F.pixel_unshuffle(eighth, 2))
    assert found.shape == (2, WIDTHS.features - WIDTHS.channels, 4, 6)
    parts = found.split([16 * WIDTHS.quarter, 4 * WIDTHS.eighth], dim=1)
    torch.testing.assert_close(F.pixel_shuffle(parts[0], 4), levels.conv_s0(quarter))
    torch.testing.assert_close(F.pixel_shuffle(parts[1], 2), levels.conv_s1(eighth))


def test_the_decoder_adds_each_level_at_its_stride() -> None:
    torch.manual_seed(0)
    fine, plain = MaskDecoder(WIDTHS), MaskDecoder(replace(WIDTHS, fine=False))
    plain.load_state_dict(fine.state_dict())
    tokens, image, places = (torch.randn(1, n, WIDTHS.channels) for n in (8, 16, 16))
    codes = Codes(tokens, places)
    levels = torch.zeros(1, 16, WIDTHS.features - WIDTHS.channels)
    without = plain(image, codes, None, 4).upscaled
    torch.testing.assert_close(fine(image, codes, levels, 4).upscaled, without)
    # token 5 is in row 1, column 1 of the grid of four: rows and columns 4 to 7 at stride 4
    for channel in (0, 16 * WIDTHS.quarter):
        changed = levels.clone()
        changed[0, 5, channel] = 10
        found = fine(image, codes, changed, 4).upscaled
        moved = (found - without).abs().sum(1).unflatten(1, (16, 16))[0] > 1e-5
        rows, columns = (set(axis.tolist()) for axis in moved.nonzero(as_tuple=True))
        assert rows
        assert rows <= set(range(4, 8))
        assert columns <= set(range(4, 8))


def test_memory_leaves_them_as_they_are() -> None:
    torch.manual_seed(0)
    stage = Propagate(EfficientTAM(SMALL).eval())
    features = torch.randn(1, SMALL.tokens, WIDTHS.features)
    memory = torch.randn(1, WIDTHS.memory, SMALL.slots * SMALL.tokens)
    pointers = torch.randn(1, POINTER_SLOTS, WIDTHS.channels), torch.ones(1, POINTER_SLOTS)
    with torch.no_grad():
        *_, conditioned = stage(features, memory, torch.tensor([[0.0, 1.0]]), *pointers)
    assert conditioned.shape == features.shape
    assert torch.equal(conditioned[..., WIDTHS.channels :], features[..., WIDTHS.channels :])
    coarse = slice(0, WIDTHS.channels)
    assert not torch.allclose(conditioned[..., coarse], features[..., coarse])


def test_features_without_them_are_refused() -> None:
    stage = Memorize(EfficientTAM(SMALL))
    features = torch.randn(1, SMALL.tokens, WIDTHS.channels)
    with pytest.raises(TensorMismatch, match="features of 128 channels, not 512"):
        stage(features, torch.zeros(1, 1, 16, 16), torch.ones(1, 1))


def test_a_plain_transformer_has_none() -> None:
    with pytest.raises(InvalidSpec, match="other: a plain vision transformer has no finer levels"):
        Variant("other", 64, 2, 256, widths=WIDTHS)

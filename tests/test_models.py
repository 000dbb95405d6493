"""The zoo's table says what timm says, and random weights keep activations in range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from phoneward.errors import UnknownName
from phoneward.export.models import cards, find
from phoneward.export.models.hybrids import REWRITES, _table
from phoneward.export.reference import write_reference
from phoneward.export.rewrites import REWRITES as KNOWN_REWRITES
from phoneward.export.rewrites import apply_all
from phoneward.runtime.parity import Reference

HYBRIDS = [name for name, card in cards().items() if card.family == "hybrids"]
SMALL = ("efficientformerv2_s0", "mobilevit_xxs", "mobilevitv2_050", "mobilenetv3_small_100")


def test_the_zoo_has_the_seventeen_hybrids_and_the_baselines() -> None:
    names = set(cards())
    hybrids = {
        *(f"efficientformer_{v}" for v in ("l1", "l3", "l7")),
        *(f"efficientformerv2_{v}" for v in ("s0", "s1", "s2", "l")),
        *(f"mobilevit_{v}" for v in ("xxs", "xs", "s")),
        *(f"mobilevitv2_{v}" for v in ("050", "075", "100", "125", "150", "175", "200")),
    }
    assert len(hybrids) == 17
    assert hybrids < names
    assert {"mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_lite0"} < names


@pytest.mark.parametrize("name", HYBRIDS)
def test_a_row_says_what_timm_says(name: str) -> None:
    row, config = _table()[name], timm.get_pretrained_cfg(_table()[name]["timm"])
    assert config is not None
    assert row["pixels"] == config.input_size[1] == config.input_size[2]
    assert tuple(row["mean"]) == config.mean
    assert tuple(row["std"]) == config.std
    assert row["crop_fraction"] == config.crop_pct
    assert row["interpolation"] == config.interpolation
    assert row["licence"] == config.license
    assert row["hub"] == config.hf_hub_id
    assert row["architecture"] in REWRITES


@pytest.mark.parametrize("name", SMALL)
def test_parameters_are_counted_right(name: str) -> None:
    model = timm.create_model(_table()[name]["timm"])
    assert cards()[name].parameters == sum(p.numel() for p in model.parameters())


def test_every_named_rewrite_exists() -> None:
    for plan in REWRITES.values():
        for names in plan.values():
            assert all(name in KNOWN_REWRITES for name in names)


@pytest.mark.parametrize(
    "name", ["efficientformer_l1", "efficientformerv2_s0", "mobilevit_xxs", "mobilevitv2_050"]
)
def test_every_planned_rewrite_of_a_hybrid_finds_its_place(name: str) -> None:
    """A module that timm renames would otherwise lose its rewrite silently."""
    card, family = find(name)
    for key, rewrites in REWRITES[card.architecture].items():
        places = apply_all(family.build(card, None)["classify"], rewrites)
        assert [name for name, count in places.items() if not count] == [], key


@pytest.mark.parametrize("name", SMALL)
def test_random_weights_are_a_function_of_the_seed_and_answer_to_the_image(name: str) -> None:
    card, family = find(name)
    shape = card.stages[0].inputs[0].shape
    images = torch.rand((2, *shape), generator=torch.Generator().manual_seed(1)) * 255
    with torch.no_grad():
        first, second = (family.build(card, None)["classify"](images[0]) for _ in range(2))
        other = family.build(card, None)["classify"](images[1])
    assert torch.equal(first, second)
    assert torch.isfinite(first).all()
    assert 0.05 < first.std() < 100
    assert (first - other).std() > 0.01 * first.std()


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="known: efficienttam_ti, .*efficientnet_lite0"):
        find("resnet50")


@pytest.mark.matrix
@pytest.mark.parametrize("name", [n for n in HYBRIDS if n != "efficientnet_lite0"])
def test_random_networks_have_favourites(name: str, tmp_path: Path) -> None:
    """What half precision cannot tell apart would make the gate's top class a matter of chance."""
    card, family = find(name)
    modules = family.build(card, None)
    examples = family.examples(card, modules)
    write_reference(modules, card.stages, examples, tmp_path / "reference.npz")
    reference = Reference.load(tmp_path / "reference.npz")
    logits = reference.outputs("classify", card.stages[0].outputs[0])[:, 0]
    best, second = np.sort(logits[reference.real("classify")], axis=1)[:, :-3:-1].T
    assert ((best - second) / np.ptp(logits[reference.real("classify")], axis=1)).min() > 0.0015

"""EfficientTAM's rewritten stages answer as the plain ones, and empty slots have no effect."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from phoneward.export.models.efficienttam.layers import LayerNorm2d
from phoneward.export.models.efficienttam.model import EfficientTAM
from phoneward.export.models.efficienttam.specs import stages as specs
from phoneward.export.models.efficienttam.stages import Encode, Memorize, Prompt, Propagate
from phoneward.export.models.efficienttam.variants import NANO, Pooling, Variant
from phoneward.export.rewrites import apply_all

FOLDED = ("tam_windows", "tam_memory", "tam_memory_encoder")
ALL = (*FOLDED, "linear_norm")
POOLINGS = (None, *get_args(Pooling))
CLOSE = 2e-5


def model_of(variant: Variant) -> EfficientTAM:
    model = EfficientTAM(variant).eval().requires_grad_(False)
    model.randomise(0)
    return model


def variant_of(
    side: int = 256, pooling: Pooling | None = None, slots: int = 7, pointers: bool = True
) -> Variant:
    return Variant("small", 24, 2, side, pooling, slots, pointers)


def rewritten(module: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """A copy in which each name found something to change."""
    # a rewrite replaces children
    root = nn.ModuleList([copy.deepcopy(module)])
    places = apply_all(root, names)
    assert all(places.values()), places
    return root[0]


def gap(one: Tensor, other: Tensor) -> float:
    """The largest difference over the range."""
    return float((one - other).abs().max() / (one.max() - one.min()).clamp(min=1e-6))


def bank_of(variant: Variant, full: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    age = torch.full((1, variant.slots), -1.0)
    age[0, :full] = torch.arange(full).float()
    channels, width = variant.widths.channels, variant.widths.memory
    memory = draw(1, width, variant.slots * variant.tokens)
    bank = [draw(1, variant.tokens, channels), memory, age]
    if variant.pointers:
        valid = torch.zeros(1, 16)
        valid[0, : full + 2] = 1
        bank += [draw(1, 16, channels), valid]
    return bank


# a whole window and cut ones, only a whole one, several whole ones and cut ones
@pytest.mark.parametrize("side", [256, 224, 512])
@pytest.mark.parametrize("names", [("tam_windows",), ("tam_windows", "linear_norm")])
def test_windows_in_order_are_windows_with_padding(side: int, names: tuple[str, ...]) -> None:
    plain = Encode(model_of(variant_of(side)))
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    assert gap(plain(image), rewritten(plain, names)(image)) < CLOSE


@pytest.mark.parametrize("pointers", [True, False])
@pytest.mark.parametrize("full", [1, 2, 7])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_folded_bank_reads_as_the_plain_one(
    pooling: Pooling | None, full: int, pointers: bool
) -> None:
    variant = variant_of(pooling=pooling, pointers=pointers)
    plain = Propagate(model_of(variant)).reader
    bank = bank_of(variant, full)
    assert gap(plain(*bank), rewritten(plain, ("tam_memory", "linear_norm"))(*bank)) < CLOSE


@pytest.mark.parametrize("full", [1, 2, 7])
def test_a_narrow_bank_folds_too(full: int) -> None:
    plain = Propagate(model_of(NANO)).reader
    bank = bank_of(NANO, full)
    assert gap(plain(*bank), rewritten(plain, ("tam_memory", "linear_norm"))(*bank)) < CLOSE


@pytest.mark.parametrize("pooling", POOLINGS)
def test_several_objects_at_once_are_each_alone(pooling: Pooling | None) -> None:
    variant = variant_of(64, pooling=pooling, slots=3)
    model = model_of(variant)
    stage, memorize = Propagate(model), Memorize(model)
    banks = [bank_of(variant, full, seed=full) for full in (1, 2, 3)]
    together = stage(*(torch.cat(rows) for rows in zip(*banks, strict=True)))
    for row, bank in enumerate(banks):
        for one, other in zip(stage(*bank), together, strict=True):
            torch.testing.assert_close(one, other[row : row + 1], rtol=1e-4, atol=1e-4)
    masks, prompted = together[0], torch.tensor([[0.0], [1.0], [0.0]])
    features = torch.cat([bank[0] for bank in banks])
    memories = memorize(features, masks, prompted)
    for row in range(3):
        alone = memorize(*(rows[row : row + 1] for rows in (features, masks, prompted)))
        torch.testing.assert_close(alone, memories[row : row + 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_a_short_bank_pools_too(pooling: Pooling, slots: int) -> None:
    variant = variant_of(pooling=pooling, slots=slots)
    plain = Propagate(model_of(variant)).reader
    for full in range(1, slots + 1):
        bank = bank_of(variant, full)
        assert gap(plain(*bank), rewritten(plain, ("tam_memory",))(*bank)) < CLOSE


def test_only_what_is_older_than_the_newest_is_pooled() -> None:
    older, whole, all_of_it = (variant_of(pooling=each) for each in ("older", None, "logits"))
    model = model_of(whole)
    readers = []
    for variant in (older, whole, all_of_it):
        same = EfficientTAM(variant).eval().requires_grad_(False)
        same.load_state_dict(model.state_dict())
        readers.append(Propagate(same).reader)
    for full, equal in ((1, True), (2, True), (3, False), (7, False)):
        bank = bank_of(whole, full)
        answer, unpooled, pooled = (reader(*bank) for reader in readers)
        assert (gap(answer, unpooled) < CLOSE) == equal
        assert gap(answer, pooled) > CLOSE or full == 1


@pytest.mark.parametrize("names", [(), ("tam_memory",)])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_lies_in_an_empty_slot_has_no_effect_at_all(
    pooling: Pooling | None, names: tuple[str, ...]
) -> None:
    variant = variant_of(pooling=pooling)
    reader = Propagate(model_of(variant)).reader
    reader = rewritten(reader, names) if names else reader
    features, memory, age, pointers, valid = bank_of(variant, 3)
    expected = reader(features, memory, age, pointers, valid)
    memory[:, :, 3 * variant.tokens :] = 1e4
    pointers[:, 5:] = -1e4
    assert torch.equal(expected, reader(features, memory, age, pointers, valid))
    memory[:, :, 2 * variant.tokens : 3 * variant.tokens] += 1
    assert not torch.equal(expected, reader(features, memory, age, pointers, valid))


@pytest.mark.parametrize("pooling", ["logits", "keys"])
def test_pooling_begins_with_the_second_memory(pooling: Pooling) -> None:
    pooled, whole = (Propagate(model_of(variant_of(pooling=how))).reader for how in (pooling, None))
    one, two = bank_of(pooled.variant, 1), bank_of(pooled.variant, 2)
    assert gap(pooled(*one), whole(*one)) < CLOSE
    assert gap(pooled(*two), whole(*two)) > 100 * CLOSE


@pytest.mark.parametrize("full", [1, 7])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_folded_bank_is_finite_in_half_precision(pooling: Pooling | None, full: int) -> None:
    variant = variant_of(pooling=pooling)
    reader = rewritten(Propagate(model_of(variant)).reader, ("tam_memory", "linear_norm"))
    bank = bank_of(variant, full)
    expected = reader(*bank)
    half = reader.half()(*(tensor.half() for tensor in bank))
    assert gap(expected, half) < 1e-2


@pytest.mark.parametrize("prompted", [0.0, 1.0])
def test_a_memory_is_the_same_on_tokens(prompted: float) -> None:
    variant = variant_of()
    plain = Memorize(model_of(variant))
    features, side = bank_of(variant, 1)[0], variant.grid * 4
    masks = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(2)) * 3
    given = features, masks, torch.tensor([[prompted]])
    assert (
        gap(plain(*given), rewritten(plain, ("tam_memory_encoder", "linear_norm"))(*given)) < CLOSE
    )


def test_a_norm_by_linear_layers_holds_large_values_in_half_precision() -> None:
    norm = nn.Sequential(nn.LayerNorm(64))
    x = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(3)) * 800
    expected = norm(x)
    assert apply_all(norm, ("linear_norm",)) == {"linear_norm": 1}
    assert (norm(x) - expected).abs().max() < 1e-5
    half = norm.half()(x.half())
    assert torch.isfinite(half).all()
    assert (half - expected).abs().max() < 2e-2


def test_a_norm_by_linear_layers_of_equal_values_is_its_bias() -> None:
    """Half precision does not hold the epsilon of the scaled variance."""
    norm = nn.Sequential(LayerNorm2d(4))
    nn.init.constant_(norm[0].bias, 0.5)
    assert apply_all(norm, ("linear_norm",)) == {"linear_norm": 1}
    x = torch.full((1, 4, 2, 2), 0.25)
    assert torch.equal(norm(x), torch.full_like(x, 0.5))
    assert torch.equal(norm.half()(x.half()), torch.full_like(x, 0.5).half())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_stage_is_finite_in_half_precision(pooling: Pooling | None) -> None:
    variant = variant_of(pooling=pooling)
    model = model_of(variant)
    generator = torch.Generator().manual_seed(4)
    stages = {"encode": Encode(model), "prompt": Prompt(model), "memorize": Memorize(model)}
    for spec in specs(variant):
        if spec.name == "propagate":
            module, given = Propagate(copy.deepcopy(model)), bank_of(variant, 1)
        else:
            module = copy.deepcopy(stages[spec.name])
            given = [torch.randn(one.shape, generator=generator) for one in spec.inputs]
        root = nn.ModuleList([module])
        apply_all(root, ALL)
        answers = root[0].half()(*(tensor.half() for tensor in given))
        for answer in answers if isinstance(answers, tuple) else (answers,):
            assert torch.isfinite(answer).all(), spec.name

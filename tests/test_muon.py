"""Muon: steps along a matrix's singular directions, AdamW for all that is no matrix."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from phoneward.export.train.loop import Phase, Schedule, optimizer_of
from phoneward.export.train.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(2, 20, 50), (1, 50, 20), (3, 16, 16)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = orthogonal(matrices)
    assert made.shape == matrices.shape
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.6
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inner = left.transpose(1, 2) @ made @ right.transpose(1, 2)
    off = inner - torch.diag_embed(torch.diagonal(inner, dim1=1, dim2=2))
    assert off.abs().max() < 1e-3


def test_a_step_is_that_of_torch_in_single_precision() -> None:
    """PyTorch's own works in bfloat16: its steps are a per cent off."""
    torch.manual_seed(0)
    ours = nn.Linear(32, 48, bias=False)
    theirs = nn.Linear(32, 48, bias=False)
    theirs.load_state_dict(ours.state_dict())
    one = Muon([{"params": [ours.weight], "matrices": True}], lr=0.01, weight_decay=0.1)
    other = torch.optim.Muon(
        [theirs.weight], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    before = ours.weight.detach().clone()
    for _ in range(3):
        gradient = torch.randn(48, 32)
        ours.weight.grad, theirs.weight.grad = gradient.clone(), gradient.clone()
        one.step()
        other.step()
    moved = (theirs.weight - before).norm()
    assert (ours.weight - theirs.weight).norm() < 0.03 * moved


def test_a_model_is_split_into_matrices_and_the_rest() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3),  # 27 inputs
        nn.Conv2d(32, 32, 3, groups=32),
        nn.LayerNorm(32),
        nn.Linear(32, 8),  # too narrow
        nn.Linear(8, 8),
        nn.Embedding(20, 32),
    )
    schedule = Schedule(1, decay=0.1)
    optimizer = optimizer_of(model, Phase("p", schedule, 0, {"3.": 0.5, "4.": 0.0}, muon=True))
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {
        (group["matrices"], group["share"], group["weight_decay"]): {
            names[id(p)] for p in group["params"]
        }
        for group in optimizer.param_groups
    }
    assert groups == {
        (True, 1.0, 0.1): {"0.weight"},
        (False, 1.0, 0.1): {"1.weight", "5.weight"},
        (False, 1.0, 0.0): {"0.bias", "1.bias", "2.weight", "2.bias"},
        (False, 0.5, 0.1): {"3.weight"},
        (False, 0.5, 0.0): {"3.bias"},
    }
    assert not model[4].weight.requires_grad


def test_a_state_that_is_restored_goes_on_alike() -> None:
    torch.manual_seed(0)
    phase = Phase("p", Schedule(1), 0, muon=True)
    models = [nn.Linear(20, 20), nn.Linear(20, 20)]
    models[1].load_state_dict(models[0].state_dict())
    first, second = (optimizer_of(model, phase) for model in models)
    gradients = [torch.randn(20, 20) for _ in range(3)]

    def step(model: nn.Linear, optimizer: torch.optim.Optimizer, number: int) -> None:
        model.weight.grad = gradients[number].clone()
        model.bias.grad = gradients[number][0].clone()
        optimizer.step()

    for number in range(2):
        step(models[0], first, number)
    models[1].load_state_dict(models[0].state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for model, optimizer in zip(models, (first, second), strict=True):
        step(model, optimizer, 2)
    torch.testing.assert_close(models[0].weight, models[1].weight, rtol=0, atol=0)
    torch.testing.assert_close(models[0].bias, models[1].bias, rtol=0, atol=0)

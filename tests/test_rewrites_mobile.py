"""The rewrites of the conv baselines leave the logits unchanged and no BatchNorm behind."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d

from phoneward.export.models import find
from phoneward.export.models.hybrids import REWRITES
from phoneward.export.rewrites import apply_all

MODELS = ("mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100", "efficientnet_lite0")


@pytest.mark.parametrize("format_name", ["*", "executorch"])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_unchanged(name: str, format_name: str) -> None:
    card, family = find(name)
    model = family.build(card, None)["classify"].double()
    rewritten = copy.deepcopy(model)
    plan = REWRITES[card.architecture]
    counts = apply_all(rewritten, plan.get(format_name, plan["*"]))
    assert all(counts[rewrite] > 0 for rewrite in ("fuse_mobile_norm", "mean_pool"))
    assert not any(isinstance(module, BatchNormAct2d) for module in rewritten.modules())
    image = torch.rand(card.stages[0].inputs[0].shape, dtype=torch.float64) * 255
    with torch.no_grad():
        before, after = model(image), rewritten(image)
    assert (before - after).abs().max() < 1e-10 * (before.max() - before.min())


def test_hard_activations_are_clamps() -> None:
    from phoneward.export.rewrites.hard_activations import apply

    model = torch.nn.Sequential(torch.nn.Hardswish(), torch.nn.Hardsigmoid())
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    expected = model(x)
    assert apply(model) == 2
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-15)

"""Make one matrix of two that follow each other.

Before: LeNet's `Trunk`: (N, 720) -> `Linear(720, 84)` -> `Linear(84, K)`, with nothing between.
After: (N, 720) -> `Linear(720, K)` with `W2 @ W1` and `W2 @ b1 + b2`, computed in double precision.
"""

from __future__ import annotations

import torch
from torch import nn

from phoneward.export.models.cbnet.networks import Trunk


def apply(model: nn.Module) -> int:
    """Merge in every `Trunk`; returns how many."""
    trunks = [
        module
        for module in model.modules()
        if isinstance(module, Trunk) and isinstance(module.hidden, nn.Linear)
    ]
    for trunk in trunks:
        trunk.classify = _product(trunk.hidden, trunk.classify)
        trunk.hidden = nn.Identity()
    return len(trunks)


def _product(first: nn.Module, second: nn.Linear) -> nn.Linear:
    merged = nn.Linear(first.weight.shape[1], second.out_features)
    with torch.no_grad():
        weight, bias = second.weight.double(), second.bias.double()
        merged.weight.copy_(weight @ first.weight.double())
        merged.bias.copy_(weight @ first.bias.double() + bias)
    return merged.requires_grad_(False).eval()

"""Modules made and replaced: what several rewrites need."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def replace(model: nn.Module, old: type[nn.Module], new: Callable[[nn.Module], nn.Module]) -> int:
    """Put `new(child)` in the place of every `old` below `model`; returns how many.

    Subclasses of `old` stay. A module that is used in two places becomes one in both.
    """
    made: dict[nn.Module, nn.Module] = {}
    places = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is old:
                if child not in made:
                    made[child] = new(child).eval()
                setattr(parent, name, made[child])
                places += 1
    return places


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer of given weights."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias.contiguous())
    return layer.requires_grad_(False)

"""Muon for the matrices of a model, AdamW for all else."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

_MOMENTUM = 0.95
_STEPS = 5
# of the quintic iteration that brings singular values near 1 (Jordan et al., "Muon", 2024)
_A, _B, _C = 3.4445, -4.7750, 2.0315
_RMS = 0.2
"""Root mean square of an AdamW step, which a matrix's steps are given too (arXiv 2502.16982)."""
_LEAST = 16  # rows and columns


class Muon(torch.optim.AdamW):
    """AdamW, whose parameter groups with `matrices` take Muon's steps instead.

    Momentum is made orthogonal: every direction that the gradients point to is learned as fast as
    the strongest. Steps are scaled as AdamW's are, so that one learning rate serves both.
    `torch.optim.Muon` is the same rule in bfloat16, which CPUs without it are many times slower at,
    and takes no convolutions.
    """

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step of every group, after the closure if there is one."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            if group.get("matrices"):
                with torch.no_grad():
                    self._step_matrices(group)
        super().step()
        return value

    def _step_matrices(self, group: dict[str, Any]) -> None:
        """Step the matrices, and take their gradients away: AdamW has nothing left to do there."""
        given = [each for each in group["params"] if each.grad is not None]
        for _, same in groupby(sorted(given, key=_shape), key=_shape):
            together = list(same)
            moves = orthogonal(torch.stack([self._momentum(each) for each in together]))
            scale = _RMS * max(moves.shape[1:]) ** 0.5
            for parameter, move in zip(together, moves, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(move.view_as(parameter), alpha=-group["lr"] * scale)
                parameter.grad = None

    def _momentum(self, parameter: Tensor) -> Tensor:
        """Return where Nesterov's momentum points, as a matrix."""
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())  # AdamW looks for it in what is restored
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - _MOMENTUM)
        return gradient.lerp(momentum, _MOMENTUM).flatten(1)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (N, R, C) with the same singular vectors, and singular values near 1.

    From 0.6 to 1.3; those that are almost nothing beside the largest stay small.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_STEPS):
        square = x @ x.transpose(1, 2)
        x = _A * x + (_B * square + _C * square @ square) @ x
    return x.transpose(1, 2) if tall else x


def is_matrix(module: nn.Module, name: str) -> bool:
    """Whether a module's own parameter `name` maps many channels to many."""
    if name != "weight" or not isinstance(module, nn.Linear | nn.Conv2d):
        return False
    grouped = isinstance(module, nn.Conv2d) and module.groups > 1
    return not grouped and min(_shape(module.weight)) >= _LEAST


def _shape(parameter: Tensor) -> tuple[int, int]:
    return parameter.shape[0], parameter[0].numel()

"""A running mean of a model's weights over the steps of its training.

Steps of small batches leave weights that jump about the ones that they are drawn to; their mean
does not (Polyak and Juditsky 1992, doi 10.1137/0330046).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """The mean of a model's state; at each step a share `kept` of it is left."""

    def __init__(self, model: nn.Module, kept: float) -> None:
        """Begin with what the model is now."""
        self._model, self._kept = model, kept
        self._state = {key: value.clone() for key, value in model.state_dict().items()}

    def update(self) -> None:
        """Take the model's state into the mean; what is no float, such as counts, is copied."""
        with torch.no_grad():
            for key, value in self._model.state_dict().items():
                mean = self._state[key]
                if value.is_floating_point():
                    mean.lerp_(value, 1 - self._kept)
                else:
                    mean.copy_(value)

    def take(self) -> None:
        """Give the model the mean."""
        self._model.load_state_dict(self._state)

    def state(self) -> dict[str, Tensor]:
        """Return the mean."""
        return self._state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a mean that `state` returned."""
        for key, value in state.items():
            self._state[key].copy_(value)

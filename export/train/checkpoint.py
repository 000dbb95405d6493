"""A training's state on disk: whole or absent, and only for the training that it was made by."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoneward.errors import InvalidSpec
from phoneward.export.train.folder import write_whole

if TYPE_CHECKING:
    from torch import nn, optim


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of one phase lies; `key` says what it is of: settings, data, seed."""

    path: Path
    key: str

    def save(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        losses: list[float],
        average: nn.Module | None = None,
    ) -> None:
        """Write the state after the last of `losses`' epochs; raises `OSError`."""
        import torch

        state = {
            "key": self.key,
            "losses": losses,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        if average is not None:
            state["average"] = average.state_dict()
        # by way of memory: torch takes a full disk for a fault of its own
        content = io.BytesIO()
        torch.save(state, content)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, content.getvalue())

    def restore(
        self, model: nn.Module, optimizer: optim.Optimizer, average: nn.Module | None = None
    ) -> list[float]:
        """Load the state if there is one; returns the losses of the epochs that are done.

        Raises:
            InvalidSpec: it is of a training with other settings, or damaged.
        """
        import torch

        if not self.path.exists():
            return []
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            key, losses = state["key"], list(state["losses"])
        except (pickle.UnpicklingError, EOFError, RuntimeError, KeyError, TypeError) as error:
            raise InvalidSpec(
                f"{self.path}: damaged checkpoint; remove it to start anew"
            ) from error
        if key != self.key:
            raise InvalidSpec(
                f"{self.path}: of a training with other settings; choose another output folder, "
                "or remove it to start anew"
            )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
        return losses

    def remove(self) -> None:
        """Forget the state, when what it led to is kept elsewhere."""
        self.path.unlink(missing_ok=True)

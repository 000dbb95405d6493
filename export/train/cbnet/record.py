"""What a training found out, beside the weights it wrote: the content of `training.json`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from phoneward.export.models.cbnet.settings import Settings
from phoneward.spec import Spec

FILE = "training.json"
Share = Annotated[float, Field(ge=0, le=1)]


class Exits(Spec):
    """How a network with an exit does on the test set: `accuracy` is of the two together."""

    exit_entropy: float
    exit_rate: Share
    accuracy: Share
    accuracy_at_exit: Share
    accuracy_at_end: Share


class Record(Spec):
    """A training's outcome; accuracies are shares of the whole test set, in PyTorch.

    `hard_per_class` counts the training images that did not leave at BranchyNet's exit, `targets`
    are the training images that the autoencoder converts to, by their place in the training set.
    `losses` has the mean of every epoch, by phase; `seconds` is the time of this run alone.
    """

    schema_version: Literal[1] = 1
    data: str
    seed: int
    settings: Settings
    train_images: int
    held_out_images: int
    test_images: int
    accuracies: dict[str, Share]
    branchynet: Exits
    exit_hybrid: Exits | None = None
    hard_per_class: dict[str, int]
    hard_rate: Share
    targets: tuple[int, ...]
    losses: dict[str, tuple[float, ...]]
    tools: dict[str, str]
    seconds: float

"""What a training found out, beside the weights it wrote: the content of `training.json`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from phoneward.export.models.cbnet.settings import Settings
from phoneward.spec import Spec

FILE = "training.json"
Share = Annotated[float, Field(ge=0, le=1)]


class Exits(Spec):
    """How a network with an exit does: `accuracy` is of the two together."""

    exit_entropy: float
    exit_rate: Share
    accuracy: Share
    accuracy_at_exit: Share
    accuracy_at_end: Share


class Outcome(Spec):
    """What all networks get right of some images, as shares, in PyTorch."""

    accuracies: dict[str, Share]
    branchynet: Exits
    exit_hybrid: Exits | None = None


class Record(Spec):
    """A training's outcome on the whole test set, and on what was held out to make choices with.

    `hard_per_class` counts the images that were trained on and did not leave at BranchyNet's exit,
    `targets` are the images that the autoencoder converts to, by their place in the training set.
    `losses` has the mean of every epoch by network; `seconds` is the time of this run alone, which
    is short if an earlier one had done the work.
    """

    schema_version: Literal[1] = 1
    data: str
    seed: int
    settings: Settings
    train_images: int
    held_out_images: int
    test_images: int
    test: Outcome
    held_out: Outcome
    hard_per_class: dict[str, int]
    hard_rate: Share
    targets: tuple[int, ...]
    losses: dict[str, tuple[float, ...]]
    tools: dict[str, str]
    seconds: float

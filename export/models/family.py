"""What a model family is to the export pipeline: cards without torch, modules on demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from phoneward.bundle import Stage
from phoneward.spec import ImageSpec, Spec

if TYPE_CHECKING:
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from phoneward.export.recipe import Recipe


@dataclass(frozen=True)
class Knobs:
    """What an export may change of a model that remembers; the defaults change nothing.

    `memory_slots` is how many frames the memory bank holds (`None`: as many as the model's own).
    `pooled_memory` averages the bank's keys 2 x 2; without `object_pointers` none are read.
    """

    memory_slots: int | None = None
    pooled_memory: bool = False
    object_pointers: bool = True


AS_IS = Knobs()


@dataclass(frozen=True)
class Examples:
    """Inputs of one stage to hold artifacts against PyTorch on.

    `inputs` has an array a tensor, stacked over samples: (samples, *shape). Images are uint8;
    whatever the dtype, the values are exact in float32. `real` (samples,) says which samples are
    photographs or were computed from photographs.
    """

    inputs: Mapping[str, NDArray[Any]]
    real: NDArray[np.bool_]


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model before it is built.

    `hub` is the Hugging Face repository that has the pretrained weights in `hub_file`, `package`
    an installable Python distribution that carries them instead, `shipped` the file beside the zoo
    that does. `top1_percent` is ImageNet-1k
    validation accuracy as published for the hub's weights. `settings` is what else decides the
    network, for families whose weights files state it: they are trained by Phoneward, with the
    command `training`.
    """

    name: str
    family: str
    architecture: str
    stages: tuple[Stage, ...]
    image: ImageSpec
    parameters: int
    licence: str
    hub: str | None = None
    package: str | None = None
    shipped: str | None = None
    hub_file: str = "model.safetensors"
    top1_percent: float | None = None
    knobs: Knobs = AS_IS
    settings: Spec | None = None
    training: str | None = None


class Family(Protocol):
    """One file of the zoo.

    A stage's module takes the tensors of the stage's spec in order, images as RGB 0 to 255 in
    NCHW, and returns one tensor or a tuple in the order of the spec. It is fp32 and in eval mode.
    """

    def cards(self) -> Iterable[ModelCard]:
        """Return the family's models; imports no torch."""
        ...

    def configure(self, card: ModelCard, knobs: Knobs) -> ModelCard:
        """Return the card of the same model with `knobs` turned, its stages reshaped to them.

        Raises `InvalidSpec` for knobs that the model does not have, or beyond their range.
        """
        ...

    def fitted(self, card: ModelCard, weights: Path) -> ModelCard:
        """Return the card as a weights file's own settings want it; imports no torch.

        A family whose weights files state none returns the card. Raises `WeightsError` for
        settings that are missing or make no sense.
        """
        ...

    def batched(self, card: ModelCard, batch: int) -> ModelCard:
        """Return the card with stages for `batch` images at a time.

        Raises `InvalidSpec` if the family's graphs take one, or the number is out of range.
        """
        ...

    def constants(self, card: ModelCard) -> dict[str, int | float | str]:
        """Return what a host of the model's stages needs to know besides their specs."""
        ...

    def examples(self, card: ModelCard, modules: Mapping[str, nn.Module]) -> Mapping[str, Examples]:
        """Return the reference inputs of each stage, the same at each call.

        `modules` is what `build` returned, for stages that take what another returns.
        """
        ...

    def build(self, card: ModelCard, state: Mapping[str, Tensor] | None) -> dict[str, nn.Module]:
        """Return stage name -> module with `state` loaded strictly (`None`: as initialised).

        Raises `WeightsError` naming missing, unexpected or misshapen keys.
        """
        ...

    def rewrites(self, card: ModelCard, recipe: Recipe) -> tuple[str, ...]:
        """Return the names of the rewrites to apply for a recipe, in order."""
        ...

    def labels(self, card: ModelCard) -> tuple[str, ...] | None:
        """Return the class labels by index, or None if the model does not classify."""
        ...

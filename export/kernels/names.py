"""Kernels of a model by its name: of the zoo, of timm or of torchvision; made once, then kept."""

from __future__ import annotations

import copy
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from phoneward.errors import InvalidSpec, PhonewardError
from phoneward.export.cache import Cache, default_root, key_of, versions
from phoneward.export.kernels.library import LIBRARIES, build, default_pixels, near
from phoneward.export.models import FAMILIES, cards, find
from phoneward.export.models.family import ModelCard
from phoneward.export.recipe import Recipe
from phoneward.profiles.kernels import StageKernels
from phoneward.quiet import noise_to

if TYPE_CHECKING:
    from torch import Tensor, nn

Stages = tuple[StageKernels, ...]
_STAGES = TypeAdapter(Stages)
_NAME = re.compile(r"(?P<library>\w+):(?P<model>[\w.\-/]+?)(?:@(?P<pixels>\d{1,5}))?")
_LEAST_PIXELS, _MOST_PIXELS = 16, 4096
_FILE = "kernels.json"


def kernels_by_name(name: str, *, recipe: Recipe | None = None, use_cache: bool = True) -> Stages:
    """Return the kernels of every stage of a model.

    Args:
        name: of the zoo (all stages), `timm:NAME@PIXELS` or `torchvision:NAME@PIXELS`; without
            `@PIXELS` the size that the model was made for.
        recipe: for a model of the zoo: the artifact whose rewrites are applied; none without.
        use_cache: look it up, and keep it, in the cache of exports.

    Raises:
        UnknownName: no such model or library; `known` has the nearest names.
        InvalidSpec: no model can be built or traced at that size.
        MissingExtra: the library is not installed.
    """
    if ":" not in name:
        if name not in (known := cards()):
            raise near("model", name, list(known))
        return kernels_of_card(known[name], recipe, use_cache=use_cache)
    library, model, pixels = _parts(name)
    identity = {"library": library, "model": model, "pixels": pixels}
    made = lambda: (_of_library(library, model, pixels),)  # noqa: E731
    return _kept({**identity, "tools": versions(_TOOLS)}, made, use_cache=use_cache)


_TOOLS = ("torch", "timm", "torchvision")


def kernels_of_card(card: ModelCard, recipe: Recipe | None, *, use_cache: bool = True) -> Stages:
    """Return the kernels of every stage of a zoo model, its knobs and a recipe's rewrites applied.

    Weights make no difference, so random ones are used.
    """
    names = [stage.name for stage in card.stages]
    return tuple(kernels_of_stage(card, name, recipe, use_cache=use_cache) for name in names)


def kernels_of_stage(
    card: ModelCard, stage: str, recipe: Recipe | None, *, use_cache: bool = True
) -> StageKernels:
    """Return the kernels of one stage of a zoo model, as `kernels_of_card` does of all."""
    rewrites = find(card.name)[1].rewrites(card, recipe) if recipe else ()
    identity = {"card": card, "stage": stage, "rewrites": rewrites, "tools": versions(_TOOLS)}
    return _kept(identity, lambda: (_of_card(card, stage, rewrites),), use_cache=use_cache)[0]


def _of_card(card: ModelCard, name: str, rewrites: Sequence[str]) -> StageKernels:
    from phoneward.export.backends.trace import example_inputs
    from phoneward.export.rewrites import apply_all

    stage = next(stage for stage in card.stages if stage.name == name)
    # stages share parts, and rewrites change what they are applied to
    module = copy.deepcopy(_modules(card)[name])
    apply_all(module, rewrites)
    return kernels_of_module(module, example_inputs(stage), name)


@lru_cache(maxsize=1)
def _modules(card: ModelCard) -> Mapping[str, nn.Module]:
    FAMILIES.require(card.family)
    return find(card.name)[1].build(card, None)


def kernels_of_module(module: nn.Module, inputs: Sequence[Tensor], stage: str) -> StageKernels:
    """Trace a module in eval mode on example inputs and fuse its ops to kernels."""
    from phoneward.export.kernels.calls import traced
    from phoneward.export.kernels.fuse import kernels_of

    return kernels_of(traced(module, inputs), stage)


def _parts(name: str) -> tuple[str, str, int]:
    matched = _NAME.fullmatch(name)
    if matched is None:
        raise InvalidSpec(f"'{name}' is no name of a model: timm:NAME@PIXELS, or a zoo name")
    library, model = matched["library"], matched["model"]
    LIBRARIES.require(library)
    pixels = int(matched["pixels"] or default_pixels(library, model))
    if not _LEAST_PIXELS <= pixels <= _MOST_PIXELS:
        raise InvalidSpec(f"{name}: images of {_LEAST_PIXELS} to {_MOST_PIXELS} pixels a side")
    return library, model, pixels


def _of_library(library: str, model: str, pixels: int) -> StageKernels:
    import torch

    module = build(library, model, pixels)
    device = next((parameter.device for parameter in module.parameters()), "cpu")
    image = torch.empty((1, 3, pixels, pixels), device=device)
    try:
        return kernels_of_module(module, (image,), "classify")
    except PhonewardError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidSpec(f"{library}:{model} has no graph at {pixels} pixels: {first}") from error


def _quietly(make: Callable[[], Stages]) -> Stages:
    with noise_to(Path(os.devnull)):
        return make()


def _kept(identity: dict[str, object], make: Callable[[], Stages], *, use_cache: bool) -> Stages:
    if not use_cache:
        return _quietly(make)
    key = key_of({"kind": "kernels", **identity})
    cache = Cache(default_root())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if cache.take(key, folder) is not None:
            return _STAGES.validate_json((folder / _FILE).read_bytes())
        made = _quietly(make)
        (folder / _FILE).write_bytes(_STAGES.dump_json(made))
        cache.put(key, folder, (_FILE,), {})
        return made

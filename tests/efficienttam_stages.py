"""EfficientTAM's PyTorch stages under the interface of engines' sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoneward.bundle import Stage
from phoneward.export.models import find
from phoneward.export.models.efficienttam import stages as graphs
from phoneward.export.models.efficienttam.family import variant_of
from phoneward.export.models.efficienttam.model import EfficientTAM
from phoneward.export.models.efficienttam.specs import stages as specs
from phoneward.export.models.efficienttam.variants import Variant
from phoneward.spec import TensorSpec
from tests.efficienttam_recipe import fill

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class TorchStage:
    """Runs a stage's module on arrays by name; as strict about them as a session."""

    stage: Stage
    module: torch.nn.Module

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.stage.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.stage.outputs

    def __call__(self, tensors: Arrays) -> dict[str, NDArray[Any]]:
        assert set(tensors) == {spec.name for spec in self.inputs}
        for spec in self.inputs:
            spec.check(tensors[spec.name])
        given = [torch.from_numpy(np.array(tensors[spec.name])) for spec in self.inputs]
        with torch.inference_mode():
            results = self.module(*given)
        results = results if isinstance(results, tuple) else (results,)
        named = {s.name: r.numpy() for s, r in zip(self.outputs, results, strict=True)}
        for spec in self.outputs:
            spec.check(named[spec.name])
        return named


@dataclass
class Recorded:
    """A stage that notes what it was asked and what it answered."""

    runner: TorchStage
    asked: list[Arrays] = field(default_factory=list)
    answered: list[Arrays] = field(default_factory=list)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.runner.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.runner.outputs

    def __call__(self, tensors: Arrays) -> Arrays:
        self.asked.append(tensors)
        self.answered.append(self.runner(tensors))
        return self.answered[-1]


@cache
def golden_stages(name: str, object_score_bias: float) -> dict[str, TorchStage]:
    """An official variant with the weights of the recipe."""
    card, family = find(name)
    shapes = {k: tuple(v.shape) for k, v in EfficientTAM(variant_of(card)).state_dict().items()}
    weights = fill(shapes, object_score_bias)
    modules = family.build(card, {key: torch.from_numpy(each) for key, each in weights.items()})
    return {stage.name: TorchStage(stage, modules[stage.name]) for stage in card.stages}


@cache
def small_stages(slots: int = 7, pointers: bool = True, side: int = 64) -> dict[str, TorchStage]:
    """The real model with a narrow trunk on small images: a frame takes some milliseconds."""
    variant = Variant("small", embedding=24, heads=2, image=side, slots=slots, pointers=pointers)
    model = EfficientTAM(variant).eval()
    model.randomise(0)
    model.requires_grad_(False)
    modules = {
        "encode": _Scaled(graphs.Encode(model)),
        "prompt": graphs.Prompt(model),
        "propagate": graphs.Propagate(model),
        "memorize": graphs.Memorize(model),
    }
    return {s.name: TorchStage(s, modules[s.name].eval()) for s in specs(variant)}


class _Scaled(torch.nn.Module):
    def __init__(self, encode: torch.nn.Module) -> None:
        super().__init__()
        self.encode = encode

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.encode((image - 127.5) / 60)
        return features

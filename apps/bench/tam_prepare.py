"""Child process: inputs of EfficientTAM's stages with a full memory, and what they cost to answer.

The photograph is the camera's frame; the same one moved, step by step, is what is remembered.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.apps.bench.child import serve
from phoneward.apps.bench.tam_records import Bank, Prepared, PrepareJob, Work, knobs_of
from phoneward.export.models import find
from phoneward.names import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import nn

    from phoneward.export.models.family import ModelCard

    Arrays = dict[str, NDArray[np.float32]]

TENSORS = "tensors.npz"
ANSWERS = "pytorch.npz"
FORMATS = ("tflite", "executorch", "onnx")

_STEP = 8  # pixels from one remembered frame to the next
_UNUSED_LABEL = -2


def prepare(job: PrepareJob) -> Prepared:
    """Fill `job.folder` with `tensors.npz` and `pytorch.npz`; count the operations."""
    from phoneward.apps.bench import tam_keys

    card, modules = build(job.model, job.bank)
    inputs = full_bank(card, modules)
    answers = {stage.name: _run(card, modules, stage.name, inputs) for stage in card.stages}
    folder = Path(job.folder)
    if job.bank == "exact":
        more, their_answers = tam_keys.tensors(modules["propagate"], inputs["propagate"])
        inputs, answers = inputs | more, answers | their_answers
    np.savez(folder / TENSORS, allow_pickle=False, **flat(inputs))
    np.savez(folder / ANSWERS, allow_pickle=False, **flat(answers))
    return Prepared(work=tuple(_count(job.bank, card, modules, inputs)))


def build(model: str, bank: Bank) -> tuple[ModelCard, dict[str, nn.Module]]:
    """Build the stages with random weights, always the same, before any rewrite."""
    import torch

    torch.manual_seed(0)
    card, family = find(model)
    card = family.configure(card, knobs_of(bank))
    return card, family.build(card, None)


def flat(arrays: Mapping[str, Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Name arrays by `<stage>/<tensor>`."""
    return {f"{stage}/{name}": a for stage, row in arrays.items() for name, a in row.items()}


def full_bank(card: ModelCard, modules: Mapping[str, nn.Module]) -> dict[str, Arrays]:
    """Inputs of all stages by name: a prompted frame and as many tracked ones as fit."""
    shapes = {s.name: {t.name: t.shape for t in s.inputs} for s in card.stages}
    inputs: dict[str, Arrays] = {"encode": {"image": _photograph(card)}}
    features = _run(card, modules, "encode", inputs)["features"]
    inputs["prompt"] = _point(shapes["prompt"]) | {"features": features}
    slots = shapes["propagate"]["memory_age"][1]
    memories, pointers = [], []
    for slot in range(slots):
        moved = np.roll(inputs["encode"]["image"], _STEP * slot, axis=3)
        seen = _run(card, modules, "encode", {"encode": {"image": moved}})["features"]
        answer = _run(card, modules, "prompt", {"prompt": inputs["prompt"] | {"features": seen}})
        inputs["memorize"] = {
            "features": seen,
            "masks": answer["masks"],
            "prompted": np.full((1, 1), float(slot == 0), np.float32),
        }
        memories.append(_run(card, modules, "memorize", inputs)["memory"])
        pointers.append(answer["pointer"][0])
    count = shapes["propagate"]["pointers"][1]
    inputs["propagate"] = {
        "features": features,
        "memory": np.concatenate(memories, axis=2),
        "memory_age": np.arange(slots, dtype=np.float32)[None],
        "pointers": np.stack([pointers[i % slots] for i in range(count)])[None],
        "pointer_valid": np.ones((1, count), np.float32),
    }
    return inputs


def _photograph(card: ModelCard) -> NDArray[np.float32]:
    from phoneward.export.photographs import photographs
    from phoneward.runtime.images import load_image, prepare

    image = prepare(load_image(photographs()[0]), card.image, card.stages[0].inputs[0])
    return image.round().astype(np.float32)


def _point(shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    """One point in the middle, as a first prompt."""
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    tensors["points"][0, 0] = shapes["mask"][-1] / 2
    tensors["labels"][:] = _UNUSED_LABEL
    tensors["labels"][0, 0] = 1
    tensors["initial"][:] = 1
    return tensors


def _run(
    card: ModelCard, modules: Mapping[str, nn.Module], stage: str, inputs: Mapping[str, Arrays]
) -> Arrays:
    from phoneward.export.reference import run

    spec = next(spec for spec in card.stages if spec.name == stage)
    return run(modules[stage], spec, inputs[stage])


def _count(
    bank: Bank,
    card: ModelCard,
    modules: Mapping[str, nn.Module],
    inputs: Mapping[str, Arrays],
) -> list[Work]:
    """Count the plain stages, and the stages as they are rewritten for each format."""
    from torch.utils.flop_counter import FlopCounterMode

    from phoneward.export.recipe import Recipe
    from phoneward.export.rewrites import apply_all

    family = find(card.name)[1]
    found = []
    for stage in card.stages:
        for name in (None, *FORMATS):
            module = copy.deepcopy(modules[stage.name])
            if name is not None:
                apply_all(module, family.rewrites(card, Recipe(name, Precision.FP32)))
            with FlopCounterMode(display=False) as counter:
                _run(card, {stage.name: module}, stage.name, inputs)
            operations = int(counter.get_total_flops())
            found.append(Work(bank=bank, stage=stage.name, format=name, operations=operations))
    return found


if __name__ == "__main__":
    serve(PrepareJob, prepare)

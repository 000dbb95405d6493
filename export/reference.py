"""What PyTorch answers on its family's examples; every artifact is held against it.

The answers come from the model as its family builds it, before any rewrite, so that the gate
covers rewrites and converters alike. They are stored in the bundle: a board without torch can
verify its artifacts.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import nn

    from phoneward.bundle import Stage
    from phoneward.export.models.family import Examples


def write_reference(
    modules: Mapping[str, nn.Module],
    specs: tuple[Stage, ...],
    examples: Mapping[str, Examples],
    out: Path,
    others: Mapping[str, NDArray[Any]] = MappingProxyType({}),
) -> None:
    """Write `reference.npz`, and `others` with it.

    For every stage, stacked over samples: `<stage>/input/<tensor>` in the dtype of the examples,
    `<stage>/output/<tensor>` float32, and `<stage>/real`, true where a sample is of photographs.
    """
    arrays: dict[str, NDArray[Any]] = dict(others)
    for spec in specs:
        arrays |= _stage_arrays(modules[spec.name], spec, examples[spec.name])
    with out.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def run(
    module: nn.Module, spec: Stage, inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float32]]:
    """Run a stage's module once on arrays by name; they are taken as float32."""
    import torch

    tensors = [torch.from_numpy(inputs[t.name].astype(np.float32)) for t in spec.inputs]
    with torch.no_grad():
        answers = module(*tensors)
    row = (answers,) if isinstance(answers, torch.Tensor) else tuple(answers)
    return {
        tensor.name: answer.numpy().astype(np.float32)
        for tensor, answer in zip(spec.outputs, row, strict=True)
    }


def _stage_arrays(module: nn.Module, spec: Stage, examples: Examples) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {f"{spec.name}/real": examples.real}
    rows = [
        run(module, spec, {name: stacked[i] for name, stacked in examples.inputs.items()})
        for i in range(len(examples.real))
    ]
    for tensor in spec.inputs:
        arrays[f"{spec.name}/input/{tensor.name}"] = examples.inputs[tensor.name]
    for tensor in spec.outputs:
        arrays[f"{spec.name}/output/{tensor.name}"] = np.stack([row[tensor.name] for row in rows])
    return arrays

"""A stage's module as one functional graph, the common start of every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from phoneward.bundle import Stage
    from phoneward.export.backends import Graph

_DTYPES = {"float32": torch.float32, "int32": torch.int32, "bool": torch.bool}


def example_inputs(stage: Stage, seed: int = 0) -> tuple[Tensor, ...]:
    """Random tensors in the stage's shapes; images are uniform in 0 to 255."""
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for spec in stage.inputs:
        values = torch.rand(spec.shape, generator=generator)
        is_image = stage.image is not None and spec.layout == "NCHW"
        tensors.append((values * 255 if is_image else values).to(_DTYPES[spec.dtype]))
    return tuple(tensors)


def trace(graph: Graph) -> ExportedProgram:
    """Capture the module with torch.export, for the stage's fixed shapes, without gradients."""
    with torch.no_grad():
        return torch.export.export(graph.module, example_inputs(graph.stage), strict=False)

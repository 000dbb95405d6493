"""A graph that computes in half precision between float32 inputs and outputs."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from phoneward.export.models.normalize import Normalized

if TYPE_CHECKING:
    from phoneward.export.backends import Graph


class _Halved(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        halves = [x.to(torch.float16) if x.is_floating_point() else x for x in inputs]
        outputs = self.body(*halves)
        if isinstance(outputs, Tensor):
            return outputs.to(torch.float32)
        return tuple(y.to(torch.float32) if y.is_floating_point() else y for y in outputs)


def halved(graph: Graph) -> Graph:
    """Return a copy of the graph with fp16 weights and activations; the original stays fp32.

    Image normalisation stays in float32: rounding 1/255 to half precision would shift every
    pixel the same way.
    """
    module = copy.deepcopy(graph.module)
    if isinstance(module, Normalized):
        module.body = _Halved(module.body.half())
    else:
        module = _Halved(module.half())
    return dataclasses.replace(graph, module=module.eval())

"""A graph that computes in half precision between float32 inputs and outputs."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from phoneward.export.backends import Graph


class _Halved(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        halves = [x.to(torch.float16) if x.is_floating_point() else x for x in inputs]
        outputs = self.body(*halves)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        return tuple(y.to(torch.float32) if y.is_floating_point() else y for y in outputs)


def halved(graph: Graph) -> Graph:
    """Return a copy of the graph with fp16 weights and activations; the original stays fp32."""
    return dataclasses.replace(graph, module=_Halved(copy.deepcopy(graph.module).half()).eval())

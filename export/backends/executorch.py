"""ExecuTorch programs (.pte) whose work is done by XNNPACK on the CPU."""

from __future__ import annotations

import operator
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoneward.bundle import Delegation
from phoneward.export.backends import Lowered
from phoneward.names import Precision

if TYPE_CHECKING:
    from phoneward.export.backends import Graph
    from phoneward.export.recipe import Recipe


class ExecuTorchBackend:
    """torch.export, then XNNPACK's partitioner; inputs and outputs stay float32 NCHW.

    fp16 computes in half precision between two casts, so that a host never handles halves. int8 is
    of linear layers, multiplied as integers.
    """

    suffix = ".pte"
    precisions = (Precision.FP32, Precision.FP16, Precision.INT8)
    targets: tuple[str, ...] = ()
    distributions = ("executorch", "torch")

    def lower(self, graph: Graph, recipe: Recipe, out: Path) -> Lowered:
        """Write a program with one method, `forward`."""
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        from phoneward.export.backends.half import halved
        from phoneward.export.backends.trace import trace
        from phoneward.export.quantize.executorch import quantized

        if recipe.precision is Precision.FP16:
            graph = halved(graph)
        program = quantized(graph) if recipe.precision is Precision.INT8 else trace(graph)
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        delegation = _delegation(edge.exported_program().graph_module)
        with out.open("wb") as stream:
            edge.to_executorch().write_to_file(stream)
        return Lowered(graph.stage.inputs, graph.stage.outputs, delegation)


def _delegation(module: Any) -> Delegation:
    from executorch.exir.delegate import executorch_call_delegate

    outside: Counter[str] = Counter()
    partitions = delegated = 0
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        if node.target is executorch_call_delegate:
            partitions += 1
            lowered = getattr(module, node.args[0].target)
            delegated += _operators(lowered.original_module.graph_module)
        elif node.target is not operator.getitem:
            outside[_name(node.target)] += 1
    return Delegation(
        delegate="XNNPACK", partitions=partitions, delegated_ops=delegated, fallback=dict(outside)
    )


def _name(target: Any) -> str:
    # an operator's overload, or a plain Python function on sizes
    name = target.name() if hasattr(target, "name") else target.__name__
    return str(name).rpartition("::")[2]


def _operators(module: Any) -> int:
    return sum(node.op == "call_function" for node in module.graph.nodes)


EXECUTORCH = ExecuTorchBackend()

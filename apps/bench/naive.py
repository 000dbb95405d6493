"""What a user gets who hands the plain timm model to each vendor's converter, defaults only."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoneward.bundle import Delegation

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Naive:
    """The tensor names in the written file, and what XNNPACK took where that is known."""

    input_name: str
    output_name: str
    delegation: Delegation | None = None


def to_tflite(model: nn.Module, example: Tensor, out: Path) -> Naive:
    """`litert_torch.convert`; the input stays NCHW, as the model has it."""
    import litert_torch

    litert_torch.convert(model, (example,)).export(str(out))
    return Naive("args_0", "output_0")


def to_executorch(model: nn.Module, example: Tensor, out: Path) -> Naive:
    """`torch.export` and the XNNPACK partitioner."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(
        torch.export.export(model, (example,)), partitioner=[XnnpackPartitioner()]
    )
    out.write_bytes(edge.to_executorch().buffer)
    return Naive("image", "logits", _delegation(edge.exported_program().graph_module))


def to_onnx(model: nn.Module, example: Tensor, out: Path) -> Naive:
    """`torch.onnx.export` with its default opset."""
    import torch

    program = torch.onnx.export(model, (example,), dynamo=True)
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    program.save(str(out))
    graph = program.model_proto.graph
    return Naive(graph.input[0].name, graph.output[0].name)


CONVERTERS: Mapping[str, Callable[[nn.Module, Tensor, Path], Naive]] = {
    "executorch": to_executorch,
    "tflite": to_tflite,
    "onnx": to_onnx,
}


def _delegation(module: Any) -> Delegation:
    from executorch.exir.delegate import executorch_call_delegate

    calls = [node for node in module.graph.nodes if node.op == "call_function"]
    delegates = [node for node in calls if node.target is executorch_call_delegate]
    outside = Counter(
        _name(node.target)
        for node in calls
        if node.target not in (executorch_call_delegate, operator.getitem)
    )
    inside = 0
    for node in delegates:
        graph = getattr(module, node.args[0].target).original_module.graph_module.graph
        inside += sum(n.op == "call_function" for n in graph.nodes)
    return Delegation(
        delegate="XNNPACK", partitions=len(delegates), delegated_ops=inside, fallback=dict(outside)
    )


def _name(target: Any) -> str:
    # an operator's overload, or a plain Python function on sizes
    name = target.name() if hasattr(target, "name") else target.__name__
    return str(name).rpartition("::")[2]

"""Which operators of a TFLite model XNNPACK takes, and which are left to the reference kernels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from phoneward.bundle import Delegation


def delegation_of(path: Path) -> Delegation:
    """Load the model with LiteRT's default delegate and see what it took.

    The interpreter lists the original operators and, behind them, one node a delegated
    partition, known by its input and output tensors; an operator belongs to a partition if it
    lies between them. Constants' `DEQUANTIZE` (half-precision weights) counts as delegated, as
    XNNPACK reads such weights itself.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    nodes = interpreter._get_ops_details()
    operators = [node for node in nodes if node["op_name"] != "DELEGATE"]
    partitions = [node for node in nodes if node["op_name"] == "DELEGATE"]
    inside = set().union(*(_between(operators, node) for node in partitions))
    outside = [n for n in operators if n["index"] not in inside and not _dequantizes(n, operators)]
    return Delegation(
        delegate="XNNPACK",
        partitions=len(partitions),
        delegated_ops=len(operators) - len(outside),
        fallback=dict(Counter(node["op_name"] for node in outside)),
    )


def _between(operators: list[dict[str, Any]], partition: dict[str, Any]) -> set[int]:
    producer = {tensor: node for node in operators for tensor in node["outputs"]}
    start, found = set(partition["inputs"]), set()
    pending = list(partition["outputs"])
    while pending:
        tensor = pending.pop()
        node = producer.get(tensor)
        if tensor in start or node is None or node["index"] in found:
            continue
        found.add(node["index"])
        pending.extend(node["inputs"])
    return found


def _dequantizes(node: dict[str, Any], operators: list[dict[str, Any]]) -> bool:
    produced = {tensor for other in operators for tensor in other["outputs"]}
    return node["op_name"] == "DEQUANTIZE" and not produced.intersection(node["inputs"])

"""What PyTorch computes at each node of an exported program."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_SHORT = 8


class _Recorder(Interpreter):
    def __init__(self, module: Any, wanted: Collection[str]) -> None:
        super().__init__(module)
        self.wanted = wanted
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.name in self.wanted and isinstance(result, Tensor):
            self.found[n.name] = result
        return result


def run_nodes(
    exported: ExportedProgram, inputs: Sequence[Tensor], wanted: Collection[str], *, half: bool
) -> dict[str, Tensor]:
    """Run an exported program; returns the results of the nodes `wanted` by name.

    With `half`, parameters and buffers are rounded to half precision first, as a package has
    them, but for those that it cannot hold.
    """
    recorder = _Recorder(exported.graph_module, wanted)
    given = iter(inputs)
    arguments = []
    placeholders = [n for n in exported.graph.nodes if n.op == "placeholder"]
    for spec, node in zip(exported.graph_signature.input_specs, placeholders, strict=True):
        stored = _stored(exported, spec.target)
        if stored is None:
            arguments.append(next(given).to(node.meta["val"].dtype))
        else:
            arguments.append(_in_half(stored) if half and stored.is_floating_point() else stored)
    with torch.inference_mode():
        recorder.run(*arguments)
    return recorder.found


def brief(arguments: Mapping[Any, Any]) -> str:
    """Arguments that fit on a line: numbers, texts and short lists; positions are left out."""
    told = {key: value for key, value in arguments.items() if _is_short(value)}
    return ", ".join(
        f"{value}" if isinstance(key, int) else f"{key}={value}" for key, value in told.items()
    )


def _is_short(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return len(value) <= _SHORT and all(_is_short(item) for item in value)
    return isinstance(value, (int, float, str))


def _stored(exported: ExportedProgram, target: str | None) -> Tensor | None:
    if target is None:
        return None
    value = exported.state_dict.get(target)
    return exported.constants.get(target) if value is None else value


def _in_half(value: Tensor) -> Tensor:
    held = value.half().to(value.dtype)
    return torch.where(held.isfinite(), held, value)

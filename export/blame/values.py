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
    told = {key: _told(value) for key, value in arguments.items()}
    return ", ".join(
        text if isinstance(key, int) else f"{key}={text}"
        for key, text in told.items()
        if text is not None
    )


def _told(value: Any) -> str | None:
    """A value in a few characters; None if it takes more. Constants of an op are tensors."""
    if isinstance(value, Tensor) and not value.ndim:
        return _told(value.item())
    if isinstance(value, (tuple, list)):
        items = [_told(item) for item in value[: _SHORT + 1]]
        texts = [text for text in items if text is not None]
        if len(texts) < len(items) or len(items) > _SHORT:
            return None
        inside = ", ".join(texts)
        comma = "," if len(texts) == 1 else ""
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{comma})"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if isinstance(value, (int, str)) else None


def _stored(exported: ExportedProgram, target: str | None) -> Tensor | None:
    if target is None:
        return None
    value = exported.state_dict.get(target)
    return exported.constants.get(target) if value is None else value


def _in_half(value: Tensor) -> Tensor:
    held = value.half().to(value.dtype)
    return torch.where(held.isfinite(), held, value)

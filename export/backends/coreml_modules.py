"""Which module of the PyTorch model each op of a Core ML program comes from.

torch.export notes on every node the modules it was called in. coremltools hands a node's
`stack_trace` from op to op through all its passes (as the scope `EXIR_STACK_TRACE`), also where a
pass gives a new name or one that another node had (`transpose_3`); names alone would lie. The
name of the node is sent along that way, since coremltools itself reads no stack trace.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

METADATA = "phoneward.modules"

# a module called again has its number of calls after its name
_CALL = re.compile(r"@\d+")
# `body` is a wrapper's model, with nothing beside it but what prepares the image
_WRAPPER = {"body", "normalize"}


def name_modules(program: Any, model: nn.Module) -> dict[str, str]:
    """Map the nodes of a torch.export program of `model` to dotted module paths.

    Paths are those of the model inside its wrappers, such as `stages.2.blocks.3.mlp.fc1`; ops of
    the model's own forward (and of the wrappers) have the path `""`. Marks the nodes, so that
    `module_of_op` finds them after the conversion.
    """
    wrapped = _wrapped(model)
    modules = {}
    for node in program.graph_module.graph.nodes:
        if node.op == "call_function":
            node.meta["stack_trace"] = node.name
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            modules[node.name] = _strip(_CALL.sub("", stack[-1][0]), wrapped) if stack else ""
    return modules


def module_of_op(op: Any, modules: Mapping[str, str]) -> str | None:
    """Return the module path of an op of coremltools' program; None for one of its own making."""
    from coremltools.converters.mil.mil.scope import ScopeSource

    nodes = op.scopes.get(ScopeSource.EXIR_STACK_TRACE) or [None]
    return modules.get(nodes[0])


def as_metadata(program: Any, modules: Mapping[str, str]) -> str:
    """Write the ops of a converted program as compact JSON: `{module path: [op names]}`."""
    grouped: dict[str, list[str]] = {}
    for function in program.functions.values():
        for op in function.operations:
            module = None if op.op_type == "const" else module_of_op(op, modules)
            if module is not None:
                grouped.setdefault(module, []).append(op.name)
    return json.dumps(grouped, separators=(",", ":"))


def _wrapped(model: nn.Module) -> str:
    """The path of the model inside its wrappers, with a dot after it; empty if there are none."""
    prefix = ""
    children = dict(model.named_children())
    while "body" in children and set(children) <= _WRAPPER:
        prefix += "body."
        children = dict(children["body"].named_children())
    return prefix


def _strip(path: str, wrapped: str) -> str:
    """`body.body.stem` -> `stem`, `body.normalize` -> `normalize`, `body` -> ``."""
    for _ in range(wrapped.count(".")):
        if path == "body":
            return ""
        if not path.startswith("body."):
            return path
        path = path.removeprefix("body.")
    return path

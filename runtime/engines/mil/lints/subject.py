"""A package as the rules look at it: its message, its ops, and their modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from phoneward.runtime.engines.mil.modules import Modules

if TYPE_CHECKING:
    from phoneward.runtime.engines.mil.package import Package


@dataclass(frozen=True)
class Subject:
    """`spec` is the `Model` message; `ops` are coremltools' operations, without constants."""

    spec: Any
    ops: tuple[Any, ...]
    modules: Modules

    @classmethod
    def of(cls, package: Package) -> Subject:
        """Read a package; raises `EngineError` if its program is not valid."""
        functions = package.program().functions.values()
        ops = tuple(op for function in functions for op in _operations(function))
        return cls(package.spec, ops, Modules.of(package))

    def features(self, side: Literal["input", "output"]) -> Iterator[Any]:
        """Iterate over the described inputs or outputs, of all functions if there are several."""
        description = self.spec.description
        for one in (description, *description.functions):
            yield from getattr(one, side)

    def ops_of(self, *types: str) -> Iterator[Any]:
        """Iterate over the ops of some types."""
        return (op for op in self.ops if op.op_type in types)


def shape_of(var: Any) -> tuple[Any, ...]:
    """The shape of a variable; symbolic dimensions are symbols, lists and scalars have none."""
    shape = getattr(var, "shape", None)
    return tuple(shape) if isinstance(shape, (tuple, list)) else ()


def sizes_of(var: Any) -> tuple[int, ...]:
    """The shape of a variable with 1 for every symbolic dimension."""
    return tuple(int(n) if isinstance(n, int) or hasattr(n, "dtype") else 1 for n in shape_of(var))


def dtype_of(var: Any) -> str:
    """`fp16`, `fp32`, `int32`, `bool`, ...; empty for lists, dictionaries and states."""
    from coremltools.converters.mil.mil import types

    sym_type = var.sym_type
    if types.is_tensor(sym_type):
        sym_type = sym_type.get_primitive()
    if not (types.is_scalar(sym_type) or types.is_bool(sym_type)):
        return ""
    return str(types.builtin_to_string(sym_type))


def value_of(op: Any, name: str, default: Any = None) -> Any:
    """The constant given for an input of an op; the default where it is left out or computed."""
    var = op.inputs.get(name)
    value = getattr(var, "val", None)
    return default if value is None else value


def _operations(block: Any) -> Iterator[Any]:
    for op in block.operations:
        if op.op_type != "const" and not op.op_type.startswith("constexpr_"):
            yield op
        for inner in op.blocks:
            yield from _operations(inner)

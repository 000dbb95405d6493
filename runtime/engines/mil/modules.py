"""From an op of a package to the module of the PyTorch model that it comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phoneward.runtime.engines.mil.package import Package

METADATA = "phoneward.modules"

# What passes hang on a name. Numbers stay: `conv2d_1` is another op than `conv2d`.
_SUFFIX = re.compile(
    r"_(cast|to)_(fp16|fp32|int32|uint16|int16|uint8|int8|bool)$"
    r"|_(quantized|dequantized|palettized|sparsified|affine_quantized|promoted)$"
)
_PREFIX = re.compile(r"^(op|var)_(?=\D)")


@dataclass(frozen=True)
class Modules:
    """Module paths by op name, as `export` wrote them into the package; `""` is the model itself.

    `readers` and `sources` are the edges of the program, by name of op: who reads its results,
    and whose results it reads. `aliases` are the names of results that are not their op's.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, package: Package) -> Modules:
        """Read them from a package's metadata; none in a package that `export` did not write."""
        return cls.from_spec(package.spec)

    @classmethod
    def from_spec(cls, spec: Any) -> Modules:
        """Read them from a `Model` message; none if it has none or they cannot be read."""
        grouped = _grouped(spec.description.metadata.userDefined.get(METADATA, ""))
        names = {name: module for module, ops in grouped.items() for name in ops}
        if not names:
            return cls()
        producers: dict[str, str] = {}
        edges: list[tuple[str, str]] = []
        for op in _operations(spec):
            name = op_name(op)
            for argument in op.inputs.values():
                read = [a.name for a in argument.arguments if a.WhichOneof("binding") == "name"]
                edges += [(producers[value], name) for value in read if value in producers]
            producers.update({value.name: name for value in op.outputs})
        aliases = {value: name for value, name in producers.items() if value != name}
        return cls(names, _fan(edges, 1, 0), _fan(edges, 0, 1), aliases)

    def __bool__(self) -> bool:
        """Whether the package tells any modules."""
        return bool(self.names)

    def module_of(self, op_name: str) -> str | None:
        """Return the module path of an op by its name in the program.

        By its own name; else by that without what coremltools hangs on names; else that of the
        nearest ops whose results it takes, or else of those that take its results, if they all
        are of one module. None: it cannot be told.
        """
        if not self.names:
            return None
        if (module := self._named(op_name)) is not None:
            return module
        upstream = self._nearest(op_name, self.sources)
        return upstream if upstream is not None else self._nearest(op_name, self.readers)

    def module_of_result(self, result_name: str) -> str | None:
        """Return the module path of the op that computes a result, by the result's name.

        A result may be called as another op is: passes name transposes anew, not their results.
        """
        return self.module_of(self.aliases.get(result_name, result_name))

    def _named(self, name: str) -> str | None:
        if name in self.names:
            return self.names[name]
        return self._plain.get(plain(name))

    @cached_property
    def _plain(self) -> dict[str, str | None]:
        """Modules by plain names; None where ops of several modules share one."""
        found: dict[str, str | None] = {}
        for name, module in self.names.items():
            short = plain(name)
            found[short] = module if found.get(short, module) == module else None
        return found

    def _nearest(self, name: str, edges: Mapping[str, tuple[str, ...]]) -> str | None:
        seen, front = {name}, {name}
        while front:
            front = {other for one in front for other in edges.get(one, ())} - seen
            modules = {m for one in front if (m := self._named(one)) is not None}
            if modules:
                return modules.pop() if len(modules) == 1 else None
            seen |= front
        return None


def plain(name: str) -> str:
    """Take off what coremltools' passes hang on a name: `op_conv2d_1_cast_fp16` -> `conv2d_1`."""
    name = _PREFIX.sub("", name)
    while (shorter := _SUFFIX.sub("", name)) != name:
        name = shorter
    return name


def op_name(op: Any) -> str:
    """Return the name of an op of a `Model` message, as coremltools' reader gives it."""
    if "name" in op.attributes:
        return str(op.attributes["name"].immediateValue.tensor.strings.values[0])
    return str(op.outputs[0].name) if op.outputs else str(op.type)


def _grouped(text: str) -> dict[str, list[str]]:
    try:
        grouped = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    sound = isinstance(grouped, dict) and all(
        isinstance(ops, list) and all(isinstance(op, str) for op in ops) for ops in grouped.values()
    )
    return grouped if sound else {}


def _operations(spec: Any) -> Iterator[Any]:
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            yield from _nested(block)


def _nested(block: Any) -> Iterator[Any]:
    for op in block.operations:
        yield op
        for inner in op.blocks:
            yield from _nested(inner)


def _fan(edges: Iterable[tuple[str, str]], key: int, value: int) -> dict[str, tuple[str, ...]]:
    fan: dict[str, dict[str, None]] = {}
    for edge in edges:
        fan.setdefault(edge[key], {})[edge[value]] = None
    return {name: tuple(others) for name, others in fan.items()}

"""The steps of a program, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phoneward.runtime.engines.mil.signature import Op

HALF = "fp16"


@dataclass(frozen=True, eq=False)
class Variable:
    """A value of the program: its name, its declared element type and shape.

    Equal only to itself: a block may call a value of its own as one outside is called.

    `dtype` is spelled as in the program (fp16, fp32, int32, bool, ...), None for lists and
    dictionaries. A size that is not fixed is None in `shape`; what is no tensor has no shape.
    """

    name: str
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    state: bool = False

    @property
    def half(self) -> bool:
        """Whether it is declared fp16."""
        return self.dtype == HALF


@dataclass(frozen=True, eq=False)
class Step:
    """One op of the program.

    `constants` are its inputs that never change, ready for the function; `sources` the variables
    that hold the others, singly or as a tuple; `frees` what no later step reads.
    """

    op: Op
    name: str
    constants: Mapping[str, Any]
    sources: Mapping[str, Variable | tuple[Variable, ...]]
    outputs: tuple[Variable, ...]
    blocks: tuple[Plan, ...] = ()
    frees: tuple[Variable, ...] = ()

    @property
    def inputs(self) -> tuple[Variable, ...]:
        """The variables it reads, in order."""
        flat: list[Variable] = []
        for source in self.sources.values():
            flat += [source] if isinstance(source, Variable) else source
        return tuple(flat)


@dataclass(frozen=True, eq=False)
class Plan:
    """The steps of a block: of a whole function, or of a branch or loop in one.

    `constants` are values that a step reads as an item of a list, or that the block returns.
    """

    inputs: tuple[Variable, ...]
    outputs: tuple[Variable, ...]
    steps: tuple[Step, ...]
    constants: Mapping[Variable, Any]

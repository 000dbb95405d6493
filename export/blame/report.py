"""What a comparison of a package with PyTorch found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phoneward.runtime.engines.mil.precision import PrecisionReport


@dataclass(frozen=True)
class Blame:
    """An op that computes something else than its PyTorch node, from the node's own inputs.

    `op`, `type`, `arguments` are the package's, `node`, `target`, `node_arguments` PyTorch's, and
    `module` is the path of the module whose forward has the node ("" is the model itself). `error`
    is the largest difference over the range of PyTorch's result, which goes from `low` to `high`
    (infinite where the op alone is not finite). Where ops and nodes are not one to one, `between`
    are ops beside this one (without a node, leading up to it; or, where this one's result is of
    another shape than the node's, the op whose values differ), any of which may be at fault, and
    `skipped` nodes (name, module and target) without an op that lead up to this one's.
    """

    op: str
    type: str
    arguments: str
    module: str | None
    node: str
    target: str
    node_arguments: str
    error: float
    low: float
    high: float
    between: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it in one line."""
        where = f" of {self.module}" if self.module else ""
        others = f"; or {', '.join(self.between)}, beside it" if self.between else ""
        if self.skipped:
            others += f"; PyTorch has {', '.join(self.skipped)} before it"
        return (
            f"{self.op} ({self.type} {self.arguments}) is off by {self.error:.1e} of the range of "
            f"{self.node}{where} ({self.target} {self.node_arguments}), "
            f"{self.low:.4g} to {self.high:.4g}{others}"
        )


@dataclass(frozen=True)
class BlameReport:
    """How a package compares with the torch.export program it is said to come from.

    Of `ops` ops that compute, `names` were paired with a node by name and `positions` by what
    they read. `unpaired` says why nothing was compared op by op, if so. `blames` are in program
    order; differences up to `bound` of a node's range agree. `outputs` has the errors of the whole
    program's outputs in float32; `precision` what half precision does to the package.
    """

    ops: int
    names: int
    positions: int
    bound: float
    outputs: Mapping[str, float]
    blames: tuple[Blame, ...]
    precision: PrecisionReport
    unpaired: str | None = None

    @property
    def first(self) -> Blame | None:
        """The first op at fault."""
        return self.blames[0] if self.blames else None

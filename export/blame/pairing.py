"""Which op of a package computes which node of the torch.export program it was converted from.

coremltools names what it makes of a node after the node; passes hang suffixes on names, fuse ops
and insert others. A pair is believed only if the shapes are equal and if what the op reads comes
from what the node reads. An op without a namesake is paired with the one node of its shape that
reads the same, if no op bears that node's name.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch.fx.node import Node, map_arg

from phoneward.runtime.engines.mil.naming import CASTS, short

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from phoneward.runtime.engines.mil.plan import Plan, Step, Variable

_ITEM = re.compile(r"_\d+$")
_CHAIN = 6


@dataclass(frozen=True)
class Pairs:
    """Node by variable of the program. `names` and `positions` count ops; `ops` those that compute.

    `fused` has the nodes that may be part of an op besides its own: each the only reader of the
    one before, and of an op of its own there is no trace. `misshapen` has, by name of an op without
    a node, the node that bears its name and comes from the same, but is of another shape.
    """

    nodes: Mapping[Variable, Node]
    fused: Mapping[Variable, tuple[Node, ...]]
    misshapen: Mapping[str, Node]
    names: int
    positions: int
    ops: int


def pair(plan: Plan, exported: ExportedProgram) -> Pairs:
    """Pair the steps of a plan with the nodes of a program, inputs and outputs by position."""
    return _Pairing(plan, exported).run()


def user_inputs(exported: ExportedProgram) -> list[Node]:
    """The placeholders of what the caller gives, in order."""
    names = set(exported.graph_signature.user_inputs)
    return [n for n in exported.graph.nodes if n.op == "placeholder" and n.name in names]


@dataclass
class _Pairing:
    plan: Plan
    exported: ExportedProgram
    nodes: dict[Variable, Node] = field(default_factory=dict)
    # the nearest paired nodes upstream of what is not paired
    fronts: dict[Variable, frozenset[Node]] = field(default_factory=dict)
    misshapen: dict[str, Node] = field(default_factory=dict)

    def run(self) -> Pairs:
        self._read_graph()
        for var, node in zip(self.plan.inputs, user_inputs(self.exported), strict=False):
            self.nodes[var] = node
        counts = {"names": 0, "positions": 0, "ops": 0}
        for step in self.plan.steps:
            front = frozenset[Any]().union(*(self._front(var) for var in step.inputs))
            if step.op.name in CASTS:
                self._look_through(step, front)
                continue
            found = self._by_name(step, front)
            counts["names"] += bool(found)
            if not found and len(step.outputs) == 1:
                found = self._by_position(step.outputs[0], front)
                counts["positions"] += bool(found)
            if not found:
                self._note_shape(step, front)
            self.nodes |= found
            self.fronts |= {var: front for var in step.outputs if var not in found}
            counts["ops"] += 1
        fused = {v: tuple(self._chain(n)) for v, n in self.nodes.items()}
        return Pairs(self.nodes, fused, self.misshapen, **counts)

    def _look_through(self, step: Step, front: frozenset[Node]) -> None:
        """A cast has the node of what it casts."""
        source = step.inputs[0] if step.inputs else None
        for var in step.outputs:
            if source in self.nodes:
                self.nodes[var] = self.nodes[source]
            else:
                self.fronts[var] = front

    def _read_graph(self) -> None:
        graph = list(self.exported.graph.nodes)
        self.by_name = {n.name: n for n in graph if n.op == "call_function"}
        self.spoken = {
            short(name)
            for step in self.plan.steps
            for name in (step.name, *(var.name for var in step.outputs))
        }
        # Ancestors as bits of an integer, the node itself included; `live`: depends on an input.
        # Nodes that compute the same have one bit, since coremltools merges their ops.
        self.ancestors: dict[Node, int] = {}
        self.place: dict[Node, int] = {}
        self.live: set[Node] = set(user_inputs(self.exported))
        kinds: dict[str, int] = {}
        for node in graph:
            index = kinds.setdefault(self._kind(node), len(kinds))
            bits = self.place[node] = 1 << index
            for parent in node.all_input_nodes:
                bits |= self.ancestors[parent]
            self.ancestors[node] = bits
            if any(parent in self.live for parent in node.all_input_nodes):
                self.live.add(node)

    def _kind(self, node: Node) -> str:
        """A text that is the same for nodes that compute the same."""
        if node.op != "call_function":
            return str(node.name)
        arguments = map_arg((node.args, node.kwargs), lambda one: f"%{self.place[one]:x}")
        return f"{node.target} {arguments}"

    def _front(self, var: Variable) -> frozenset[Node]:
        if var in self.nodes:
            return frozenset((self.nodes[var],))
        return self.fronts.get(var, frozenset())

    def _by_name(self, step: Step, front: frozenset[Node]) -> dict[Variable, Node]:
        found: dict[Variable, Node] = {}
        for index, var in enumerate(step.outputs):
            for known in self._names(step, var):
                node = self._item(self.by_name.get(known), index)
                if node is not None and self._fits(node, var, front):
                    found[var] = node
                    break
        return found

    def _names(self, step: Step, var: Variable) -> Iterator[str]:
        """Names that the node may have.

        Passes rename ops more often than results, but for items and the program's results.
        """
        several, last = len(step.outputs) > 1, var in self.plan.outputs
        for bearer in (*[var.name] * (not several), *[step.name] * (several or last)):
            name = short(bearer)
            yield from dict.fromkeys((name, _ITEM.sub("", name)))

    def _item(self, node: Node | None, index: int) -> Node | None:
        """The node itself, or what takes an item out of a node with several results."""
        if node is None or not isinstance(node.meta.get("val"), (tuple, list)):
            return node
        takers = [user for user in node.users if user.args[1:] == (index,)]
        return takers[0] if takers else None

    def _fits(self, node: Node, var: Variable, front: frozenset[Node]) -> bool:
        return shape_of(node) == var.shape and self._comes_from(node, front)

    def _comes_from(self, node: Node, front: frozenset[Node]) -> bool:
        return (
            node not in self.nodes.values()
            and node in self.live
            and all(self.ancestors[node] & self.place[one] for one in front)
        )

    def _note_shape(self, step: Step, front: frozenset[Node]) -> None:
        for index, var in enumerate(step.outputs):
            for known in self._names(step, var):
                node = self._item(self.by_name.get(known), index)
                if node is not None and shape_of(node) and self._comes_from(node, front):
                    self.misshapen.setdefault(step.name, node)

    def _by_position(self, var: Variable, front: frozenset[Node]) -> dict[Variable, Node]:
        candidates = [
            node
            for node in {user for one in front for user in one.users}
            if node.name not in self.spoken
            and self._fits(node, var, front)
            and {parent for parent in node.all_input_nodes if parent in self.live} == front
        ]
        return {var: candidates[0]} if len(candidates) == 1 else {}

    def _chain(self, node: Node) -> Iterator[Node]:
        for _ in range(_CHAIN):
            users = list(node.users)
            if len(users) != 1 or users[0].name in self.spoken or users[0].op != "call_function":
                return
            (node,) = users
            yield node


def shape_of(node: Node) -> tuple[int, ...] | None:
    """The shape of a node's result; None if it is no single tensor."""
    value = node.meta.get("val")
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple(int(size) for size in shape)


def module_of(node: Node) -> str | None:
    """The path of the module whose forward made a node, "" for the model itself."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return None
    path, _ = list(stack.values())[-1]
    return str(path)


def skipped_before(node: Node, paired: Collection[Node]) -> tuple[str, ...]:
    """Nodes without an op that lead up to a node, latest last; constants are left out."""
    found: dict[Node, None] = {}
    front = [node]
    while front:
        parents = [p for one in front for p in one.all_input_nodes if p.op == "call_function"]
        front = [p for p in parents if p not in paired and p not in found]
        found |= dict.fromkeys(front)
    return tuple(f"{one.name}{_where(one)} ({one.target})" for one in reversed(found))


def modules_of(plan: Plan, pairs: Pairs) -> dict[str, str]:
    """Module paths by name of op: that of its node, or else of the first op that reads its result.

    The last of the ops that a node becomes bears its name, hence readers and not what is read.
    """
    found: dict[str, str] = {}
    readers: dict[Variable, str] = {}
    for step in reversed(plan.steps):
        nodes = [pairs.nodes[var] for var in step.outputs if var in pairs.nodes]
        told = [module_of(node) for node in nodes] or [readers.get(var) for var in step.outputs]
        module = next((one for one in told if one is not None), None)
        if module is not None:
            found[step.name] = module
            readers |= dict.fromkeys(step.inputs, module)
    return found


def computing(node: Node) -> Node:
    """The node itself, or the one with several results of which it is one."""
    if node.target is operator.getitem and isinstance(node.args[0], Node):
        return node.args[0]
    return node


def _where(node: Node) -> str:
    return f" of {module}" if (module := module_of(node)) else ""


def steps_between(between: Sequence[Step]) -> tuple[str, ...]:
    """Names of the ops that compute something among steps without a pair."""
    return tuple(step.name for step in between if step.op.name not in CASTS)

"""Calls become kernels: one pass that lets a call join the kernel before it where engines do."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from phoneward.export.kernels.calls import GETITEM, Call, Operand, Program, Shape
from phoneward.export.kernels.gates import merge_gates
from phoneward.export.kernels.layouts import undo_layouts
from phoneward.export.kernels.rules import RULES, OpRule, Role
from phoneward.export.kernels.work import Work
from phoneward.profiles.kernels import Kernel, KernelKind, StageKernels

WEIGHTED: frozenset[KernelKind] = frozenset(
    ("conv", "pointwise", "depthwise", "grouped", "transposed", "linear")
)
"""Kernels into whose weights a batch norm, a layer scale and a bias vanish; a residual is added to
their result before it is written."""
ACTIVATED = WEIGHTED | {"matmul", "elementwise"}
"""Kernels that apply an activation to what they write."""
_CLAMPS = {"aten.hardtanh": ("min_val", "max_val"), "aten.clamp": ("min", "max")}
_PADDINGS = ("aten.pad", "aten.constant_pad_nd")


@dataclass
class _Draft:
    """A kernel that may still grow."""

    call: Call
    work: Work
    ops: list[str]
    reads: int
    params: int
    in_shape: Shape
    source: str | None
    activation: str | None = None
    biased: bool = False
    absorbed: bool = False

    @property
    def out_shape(self) -> Shape:
        return self.call.results[0] if self.call.results else ()

    @property
    def channels(self) -> int:
        """How many places along the axis that weights have an output for."""
        shape = self.out_shape
        if self.work.kind == "linear" or len(shape) < 2:
            return shape[-1] if shape else 1
        return shape[1]

    def kernel(self) -> Kernel:
        return Kernel(
            kind=self.work.kind,
            ops=tuple(self.ops),
            module=self.call.module,
            macs=self.work.macs,
            reads=self.reads,
            writes=self.call.written,
            params=self.params,
            in_shape=self.in_shape,
            out_shape=self.out_shape,
            window=self.work.window,
            stride=self.work.stride,
            groups=self.work.groups,
            activation=self.activation,
        )


@dataclass(frozen=True)
class _Value:
    """Where a value comes from: its name before any view, its draft, its elements there.

    A constant has no draft, and is no input.
    """

    root: str
    numel: int
    constant: bool = False
    draft: _Draft | None = None


@dataclass
class _Fusion:
    uses: Counter[str]
    values: dict[str, _Value]
    drafts: list[_Draft] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)


def kernels_of(program: Program, stage: str) -> StageKernels:
    """Fuse a traced program's calls; what no rule knows is counted in `unknown`."""
    program = undo_layouts(merge_gates(program))
    fusion = _Fusion(_uses(program), {name: _Value(name, 0) for name in program.inputs})
    for call in program.calls:
        _take(fusion, call)
    kernels = tuple(draft.kernel() for draft in fusion.drafts if not draft.absorbed)
    return StageKernels(stage=stage, kernels=kernels, unknown=dict(fusion.unknown))


def _uses(program: Program) -> Counter[str]:
    """How often each value is read, by its name before any view, the graph's outputs included."""
    roots: dict[str, str] = {}
    uses: Counter[str] = Counter()
    for call in program.calls:
        read = [roots.get(operand.name, operand.name) for operand in call.operands]
        if read and _is_view(call):
            roots[call.name] = read[0]
        else:
            uses.update(read)
    uses.update(roots.get(name, name) for name in program.outputs)
    return uses


def _is_view(call: Call) -> bool:
    rule = RULES.get(call.op)
    return rule is not None and (rule.role is Role.VIEW or rule.free(call))


def _take(fusion: _Fusion, call: Call) -> None:
    rule = RULES.get(call.op)
    known = [_value(fusion, operand) for operand in call.operands]
    if rule is not None and rule.role is Role.NOTHING:
        return
    if all(value.constant for value in known) or (rule and rule.role is Role.CONSTANT):
        fusion.values[call.name] = _Value(call.name, call.written, constant=True)
    elif rule is None:
        fusion.unknown[call.op] += 1
        fusion.values[call.name] = _Value(call.name, call.written)
    elif _is_view(call):
        fusion.values[call.name] = _viewed(call, known[0])
    else:
        draft = _joined(fusion, call, rule) or _begun(fusion, call, rule)
        fusion.values[call.name] = _Value(call.name, call.written, draft=draft)
        draft.call = dataclasses.replace(draft.call, results=call.results)


def _value(fusion: _Fusion, operand: Operand) -> _Value:
    """What is not known by now is a parameter, a buffer or a constant."""
    known = fusion.values.get(operand.name)
    if known is None:
        return _Value(operand.name, operand.numel, constant=True)
    return known if known.numel else _Value(known.root, operand.numel)


def _viewed(call: Call, value: _Value) -> _Value:
    # an expanded value is still read once; of several results one is picked
    picked = sum(1 for _ in call.results) and call.written
    numel = picked if call.op == GETITEM else min(value.numel, call.written)
    return _Value(value.root, numel, value.constant, value.draft)


def _begun(fusion: _Fusion, call: Call, rule: OpRule) -> _Draft:
    work = rule.work(call)
    values = [_value(fusion, operand) for operand in call.operands]
    computed = [v for v in values if not v.constant]
    params = sum(value.numel for value in values if value.constant)
    if work.kind == "matmul" and any(v.constant for v in values):
        work = Work("linear", work.macs)
    if rule.role is Role.AFFINE:
        params = 2 * call.operands[1].numel
    shapes = [o.shape for o, v in zip(call.operands, values, strict=True) if not v.constant]
    draft = _Draft(
        call=call,
        work=work,
        ops=list(call.ops),
        reads=_reads(call, work, computed),
        params=min(params, work.params) if work.params is not None else params,
        in_shape=shapes[0],
        source=computed[0].root,
        activation=_activation(call, rule),
        biased=_has_bias(call),
    )
    _absorb_padding(fusion, draft, values[0])
    fusion.drafts.append(draft)
    return draft


def _reads(call: Call, work: Work, computed: Sequence[_Value]) -> int:
    distinct = {value.root: value.numel for value in computed}
    if work.kind == "gather" or (work.kind == "move" and call.op != "aten.cat"):
        # what is sliced away is not read
        return min(sum(distinct.values()), call.written)
    return sum(distinct.values())


def _has_bias(call: Call) -> bool:
    return isinstance(call.arguments.get("bias"), Operand) or call.op == "aten.addmm"


def _activation(call: Call, rule: OpRule) -> str | None:
    ends = _CLAMPS.get(call.op)
    if ends is not None and tuple(call.arguments.get(end) for end in ends) == (0, 6):
        return "relu6"
    return rule.activation


def _absorb_padding(fusion: _Fusion, draft: _Draft, padded: _Value) -> None:
    """A convolution pads its input itself."""
    before = padded.draft
    if before is None or before.call.op not in _PADDINGS or draft.work.kind not in WEIGHTED:
        return
    if fusion.uses[padded.root] == 1 and draft.work.kind != "linear":
        before.absorbed = True
        draft.reads, draft.in_shape = before.reads, before.in_shape
        draft.source = before.source
        draft.ops.append(before.call.op)


def _joined(fusion: _Fusion, call: Call, rule: OpRule) -> _Draft | None:
    """Return the draft that took the call, if one did."""
    if rule.role is Role.KERNEL:
        return None
    joins = {
        Role.AFFINE: _join_affine,
        Role.ACTIVATION: _join_activation,
        Role.ELEMENTWISE: _join_elementwise,
    }
    values = [_value(fusion, operand) for operand in call.operands]
    draft = _latest(fusion, values)
    if draft is None or draft.activation is not None:
        return None
    return draft if joins[rule.role](draft, call, rule, values) else None


def _latest(fusion: _Fusion, values: Sequence[_Value]) -> _Draft | None:
    """The last draft that wrote one of the values, if nothing else reads that value."""
    drafts = [(v.draft, v) for v in values if v.draft is not None]
    if not drafts:
        return None
    draft, value = max(drafts, key=lambda pair: fusion.drafts.index(pair[0]))
    return draft if fusion.uses[value.root] == 1 else None


def _join_affine(draft: _Draft, call: Call, rule: OpRule, values: Sequence[_Value]) -> bool:
    if draft.work.kind not in WEIGHTED or call.operands[1].numel != draft.channels:
        return False
    _bias(draft)
    draft.ops.extend(call.ops)
    return True


def _bias(draft: _Draft) -> None:
    if not draft.biased:
        draft.biased, draft.params = True, draft.params + draft.channels


def _join_activation(draft: _Draft, call: Call, rule: OpRule, values: Sequence[_Value]) -> bool:
    if draft.work.kind not in ACTIVATED:
        return False
    draft.activation = _activation(call, rule)
    draft.params += sum(value.numel for value in values if value.constant)
    draft.ops.extend(call.ops)
    return True


def _join_elementwise(draft: _Draft, call: Call, rule: OpRule, values: Sequence[_Value]) -> bool:
    others = [value for value in values if value.draft is not draft]
    if call.written != draft.call.written or len(others) + 1 != len(values):
        return False
    if all(value.constant for value in others):
        return _join_constant(draft, call, others)
    residual = draft.work.kind in WEIGHTED and call.op == "aten.add"
    if residual and len(others) == 1 and others[0].numel == call.written:
        draft.reads += others[0].numel
        draft.ops.extend(call.ops)
        return True
    return False


def _join_constant(draft: _Draft, call: Call, others: Sequence[_Value]) -> bool:
    """A factor or an addend a channel vanishes into weights; elementwise work takes any."""
    elements = sum(value.numel for value in others)
    folds = call.op in ("aten.add", "aten.sub", "aten.mul", "aten.div", "aten.neg")
    if draft.work.kind in WEIGHTED and folds and elements in (0, 1, draft.channels):
        if call.op in ("aten.add", "aten.sub"):
            _bias(draft)
    elif draft.work.kind == "elementwise" or (draft.work.kind == "matmul" and elements <= 1):
        draft.params += elements
    else:
        return False
    draft.ops.extend(call.ops)
    return True

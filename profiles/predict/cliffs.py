"""Cliffs: rules with their evidence, about set-ups whose latency no smooth model foretells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, ValidationError

from phoneward.errors import InvalidSpec
from phoneward.profiles.device import device_names, load_device
from phoneward.profiles.kernels import KernelKind
from phoneward.profiles.report.schema import Predicted
from phoneward.spec import Spec
from phoneward.toml import parse_toml

if TYPE_CHECKING:
    from phoneward.profiles.device import Device
    from phoneward.profiles.kernels import Kernel, StageKernels
    from phoneward.profiles.predict.group import Group

_FILE = "cliffs.toml"
_Text = Annotated[str, Field(min_length=1)]


class When(Spec):
    """Conditions, all of which must hold; what is empty or None is no condition.

    Attributes:
        units, runtimes, socs, numerics: as in `Group`; one of them.
        precisions: as it was asked for: `fp16`, `fp32`, ...; one of them.
        npus: the device file's `npu_model`; one of them.
        lacks: an `isa_` flag that the device file says is false.
        kinds: of kernels; the graph has one of them.
        activations: fused into a kernel; the graph has one of them.
        pixels: of the largest picture that a kernel reads; at least.
        tokens: that a softmax or an attention goes over; at least.
    """

    units: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    socs: tuple[str, ...] = ()
    numerics: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    npus: tuple[str, ...] = ()
    lacks: str | None = None
    kinds: tuple[KernelKind, ...] = ()
    activations: tuple[str, ...] = ()
    pixels: Annotated[int, Field(gt=0)] | None = None
    tokens: Annotated[int, Field(gt=0)] | None = None


class Rule(Spec):
    """One cliff.

    Attributes:
        name: kebab-case.
        when: its conditions.
        says: for a reader, a sentence without a full stop.
        factor: by which a prediction that does not know the cliff is too small; None: warn only.
        evidence: who measured what.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    when: When
    says: _Text
    factor: Annotated[float, Field(gt=1)] | None = None
    evidence: Annotated[tuple[_Text, ...], Field(min_length=1)]

    def sentence(self, *, counted: bool = True) -> str:
        """Return what a prediction says of it."""
        applied = f" (counted: x{self.factor:g})" if self.factor and counted else ""
        return f"{self.says}{applied} [{self.name}]"


class _RulesFile(Spec):
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Where:
    """A set-up, the precision as it was asked for, and the device if there is a file of it."""

    group: Group
    precision: str | None = None
    device: Device | None = None


@cache
def rules() -> tuple[Rule, ...]:
    """Return all rules in the order of the file; raises `InvalidSpec` if it is malformed."""
    file = files("phoneward.profiles.predict") / "data" / _FILE
    try:
        return _RulesFile.model_validate(parse_toml(_FILE, file.read_bytes())).rules
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidSpec(f"{_FILE}: {where}: {first['msg']}") from error


def where(group: Group, device: str, precision: str | None) -> Where:
    """Return what is predicted; a device without a file has no facts that a rule could ask for."""
    found = load_device(device) if device in device_names() else None
    return Where(group, precision, found)


def cliffs(stages: Sequence[StageKernels], asked: Where) -> tuple[Rule, ...]:
    """Return the rules that hold for graphs there."""
    kernels = [kernel for stage in stages for kernel in stage.kernels]
    return tuple(
        rule for rule in rules() if _is_there(rule.when, asked) and _has(rule.when, kernels)
    )


def with_cliffs(predicted: Predicted, found: Sequence[Rule], *, counted: bool = True) -> Predicted:
    """Return a prediction with its cliffs in words.

    Args:
        predicted: the prediction.
        found: the rules that hold.
        counted: multiply by their factors; not where own measurements have them in already.
    """
    if not found:
        return predicted
    factor = 1.0
    for rule in found:
        factor *= rule.factor or 1.0 if counted else 1.0
    low, high = predicted.interval_ms
    breakdown = tuple(
        share.model_copy(update={"latency_ms": share.latency_ms * factor})
        for share in predicted.breakdown
    )
    changes = {
        "latency_ms": predicted.latency_ms * factor,
        "interval_ms": (low * factor, high * factor),
        "breakdown": breakdown,
        "cliffs": (*predicted.cliffs, *(rule.sentence(counted=counted) for rule in found)),
    }
    return Predicted.model_validate({**dict(predicted), **changes})


def _is_there(when: When, asked: Where) -> bool:
    group = asked.group
    pairs = (
        (when.units, group.unit),
        (when.runtimes, group.runtime),
        (when.socs, group.soc),
        (when.numerics, group.numeric),
        (when.precisions, asked.precision),
        (when.npus, _fact(asked, "npu_model")),
    )
    if any(wanted and value not in wanted for wanted, value in pairs):
        return False
    return when.lacks is None or _fact(asked, when.lacks) is False


def _has(when: When, kernels: Sequence[Kernel]) -> bool:
    if when.kinds and not any(kernel.kind in when.kinds for kernel in kernels):
        return False
    if when.activations and not any(k.activation in when.activations for k in kernels):
        return False
    if when.pixels and max(map(_pixels, kernels), default=0) < when.pixels:
        return False
    return not when.tokens or max(map(_tokens, kernels), default=0) >= when.tokens


def _pixels(kernel: Kernel) -> int:
    """Return height times width of a picture, (N, C, H, W); 0 for what is none."""
    shape = kernel.in_shape
    return shape[2] * shape[3] if kernel.kind in ("conv", "depthwise") and len(shape) == 4 else 0


def _tokens(kernel: Kernel) -> int:
    if kernel.kind == "softmax" and len(kernel.in_shape) >= 3:
        return kernel.in_shape[-1]
    if kernel.kind == "attention" and len(kernel.in_shape) >= 2:
        return kernel.in_shape[-2]
    return 0


def _fact(asked: Where, name: str) -> object:
    fact = asked.device.facts.get(name) if asked.device else None
    return fact.value if fact else None

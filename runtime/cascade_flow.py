"""Do the stages of a cascade fit each other? Asked of runners, or of artifacts before they open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from phoneward.errors import BundleError
from phoneward.spec import TensorSpec, logits_in


class Signature(Protocol):
    """What a stage takes and returns: a `Runner`, or an artifact that is not opened yet."""

    @property
    def inputs(self) -> Sequence[TensorSpec]: ...

    @property
    def outputs(self) -> Sequence[TensorSpec]: ...


def exits_of(stages: Mapping[str, Signature]) -> tuple[str, ...]:
    """Return the names of the stages that return logits and are not the last."""
    return tuple(name for name in list(stages)[:-1] if logits_in(stages[name].outputs) is not None)


def check_cascade(stages: Mapping[str, Signature], given: Sequence[str]) -> dict[str, TensorSpec]:
    """Check that stages fit each other; return the specs of those `given` tensors that they take.

    Raises:
        BundleError: there are no stages; the last returns no logits; a stage takes what nobody
            gives, or in another shape, dtype or layout, or not as batches of one size; no stage
            takes anything that is given; or exits know other numbers of classes.
    """
    if not stages or logits_in(stages[list(stages)[-1]].outputs) is None:
        raise BundleError("the last stage gives no logits")
    known: dict[str, TensorSpec] = {}
    taken: dict[str, TensorSpec] = {}
    classes: set[int] = set()
    for name, stage in stages.items():
        _check_batch(name, stage)
        for spec in stage.inputs:
            if spec.name not in known and spec.name in given:
                known[spec.name] = taken[spec.name] = spec
            _check_handed_on(name, spec, known)
        known |= {spec.name: spec for spec in stage.outputs}
        if (scores := logits_in(stage.outputs)) is not None:
            classes.add(scores.shape[-1])
    if not taken:
        raise BundleError(f"no stage takes {' or '.join(given)}")
    if len(classes) > 1:
        raise BundleError(f"the stages know different numbers of classes: {sorted(classes)}")
    return taken


def _check_batch(name: str, stage: Signature) -> None:
    sizes = {spec.shape[:1] for spec in (*stage.inputs, *stage.outputs)}
    if not stage.inputs or len(sizes) != 1 or () in sizes:
        raise BundleError(f"the tensors of stage '{name}' are not batches of one size")


def _check_handed_on(name: str, spec: TensorSpec, known: Mapping[str, TensorSpec]) -> None:
    if spec.name not in known:
        raise BundleError(f"stage '{name}' takes '{spec.name}', which no stage before it gives")
    source = known[spec.name]
    if _kind(source) != _kind(spec):
        raise BundleError(
            f"stage '{name}' takes '{spec.name}' as {_told(spec)}, and is given {_told(source)}"
        )


def _kind(spec: TensorSpec) -> tuple[object, ...]:
    return spec.shape[1:], spec.dtype, spec.layout, spec.quantization


def _told(spec: TensorSpec) -> str:
    return f"{spec.dtype} {spec.layout} {spec.shape[1:]}"

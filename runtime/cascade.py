"""Several stages in a row that classify images, and that easy images leave early.

The stages run in the order given. Each takes its inputs by name from what the caller gave and
what the stages before it returned; a later output replaces an earlier one of the same name. After
a stage that returns logits and is not the last, the images whose answer is certain leave with it,
and only the others go on. That is the exit of BranchyNet (Teerapittayanon et al. 2016, arXiv
1709.01686, algorithm 1): an answer is certain if the entropy of its softmax is below a threshold.
A pipeline without such a stage is the same loop, and one stage alone is the shortest of them.

A graph has a fixed batch N, the first axis of each of its tensors. Images run in chunks of N; those
that go on are gathered from all chunks before the next stage, so that it runs full chunks too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.errors import BundleError, EngineError, InvalidSpec, TensorMismatch
from phoneward.runtime.cascade_flow import check_cascade, exits_of
from phoneward.spec import TensorSpec, logits_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.runtime.stages import Arrays, Runner


@dataclass(frozen=True)
class Answers:
    """What a cascade says of B images.

    `logits` are (B, K), each row by the stage that its image left at: `stages[answered[i]]`.
    `others` has all other outputs by name, then by index of the image, without the batch axis: the
    last ones of that name which were computed for the image, in the layout of the artifact.
    """

    logits: NDArray[Any]
    stages: tuple[str, ...]
    answered: NDArray[np.intp]
    others: Mapping[str, Mapping[int, NDArray[Any]]]

    @property
    def exited(self) -> NDArray[np.bool_]:
        """Which images left before the last stage, shape (B,)."""
        return self.answered < len(self.stages) - 1


class Cascade:
    """Runs stages on arrays; not for use by several threads at once."""

    def __init__(
        self,
        runners: Mapping[str, Runner],
        exit_entropy: float | None = None,
        given: Sequence[str] = ("image",),
    ) -> None:
        """Take the stages in their order, and the names of the tensors that callers will give.

        `exit_entropy` is in nats: 0 lets no image leave early, more than ln K lets all.

        Raises:
            BundleError: as `check_cascade`, or there is an exit and no `exit_entropy`.
            InvalidSpec: `exit_entropy` is below 0 or no number, or there is no exit for it.
        """
        self._inputs = check_cascade(runners, given)
        self.exits = exits_of(runners)
        if self.exits and exit_entropy is None:
            raise BundleError(f"stage '{self.exits[0]}' is an exit, and 'exit_entropy' is missing")
        if exit_entropy is not None:
            check_entropy(exit_entropy, self.exits)
        self.stages, self.exit_entropy = tuple(runners), exit_entropy
        self._runners = dict(runners)
        found = {name: logits_in(runner.outputs) for name, runner in runners.items()}
        self._scores = {name: spec for name, spec in found.items() if spec is not None}

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that callers give, as the first stage that takes each has them."""
        return tuple(self._inputs.values())

    @property
    def batches(self) -> tuple[int, ...]:
        """How many images each stage takes at once."""
        return tuple(self._runners[name].inputs[0].shape[0] for name in self.stages)

    def __call__(self, tensors: Arrays) -> Answers:
        """Answer B images: tensors by name, each (B, *shape[1:]) of its spec in `inputs`.

        Raises:
            TensorMismatch: a tensor is missing, unknown, of another shape or dtype, or of more
                images than others.
            EngineError: a stage failed, or not all that it returned is finite.
        """
        going = np.arange(self._count(tensors))
        last = self._scores[self.stages[-1]]
        logits = np.zeros((len(going), last.shape[-1]), last.dtype)
        answered = np.full(len(going), len(self.stages) - 1, np.intp)
        others: dict[str, dict[int, NDArray[Any]]] = {}
        known = dict(tensors)
        for number, name in enumerate(self.stages):
            if not len(going):
                break
            outputs = self._run(name, known, len(going))
            known |= outputs
            scores = self._scores.get(name)
            for output, array in outputs.items():
                if scores is None or output != scores.name:
                    others.setdefault(output, {}).update(zip(going.tolist(), array, strict=True))
            if scores is not None:
                leaving = self._leaving(name, outputs[scores.name])
                logits[going[leaving]] = outputs[scores.name][leaving]
                answered[going[leaving]] = number
                going = going[~leaving]
                known = {key: array[~leaving] for key, array in known.items()}
        return Answers(logits, self.stages, answered, others)

    def _count(self, tensors: Arrays) -> int:
        if set(tensors) != set(self._inputs):
            raise TensorMismatch(
                f"takes the tensors {', '.join(self._inputs)}; got {', '.join(tensors)}"
            )
        counts = {len(array) for array in tensors.values()}
        if len(counts) != 1:
            raise TensorMismatch(f"the tensors are of different numbers of images: {counts}")
        (count,) = counts
        for name, spec in self._inputs.items():
            rows = spec.model_copy(update={"shape": (count, *spec.shape[1:])})
            rows.check(tensors[name])
        return count

    def _run(self, name: str, known: Arrays, count: int) -> Arrays:
        runner = self._runners[name]
        size = runner.inputs[0].shape[0]
        chunks = [
            runner({s.name: _filled(known[s.name][i : i + size], size) for s in runner.inputs})
            for i in range(0, count, size)
        ]
        outputs = {s.name: np.concatenate([c[s.name] for c in chunks]) for s in runner.outputs}
        for output, array in outputs.items():
            if not np.isfinite(array).all():
                raise EngineError(f"stage '{name}': not all {output} are finite")
        return {output: array[:count] for output, array in outputs.items()}

    def _leaving(self, name: str, scores: NDArray[Any]) -> NDArray[np.bool_]:
        if name not in self.exits or self.exit_entropy is None:
            return np.ones(len(scores), np.bool_)
        return np.asarray(entropy(scores) < self.exit_entropy)


def check_entropy(threshold: float, exits: Sequence[str]) -> None:
    """Raise `InvalidSpec` unless there are exits and a threshold in nats is a number from 0 on."""
    if not exits:
        raise InvalidSpec("no stage but the last gives logits: without an exit no entropy decides")
    if not threshold >= 0:
        raise InvalidSpec(f"an exit entropy is at least 0 nats, not {threshold}")


def entropy(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Shannon entropy of the softmax of finite logits (..., K), in nats, from 0 to ln K."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    total = powers.sum(axis=-1)
    return np.asarray(np.log(total) - (powers * shifted).sum(axis=-1) / total, np.float64)


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Scores from 0 to 1 of finite logits (..., K)."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float64)


def _filled(rows: NDArray[Any], size: int) -> NDArray[Any]:
    missing = size - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows

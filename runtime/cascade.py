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
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from phoneward.errors import BundleError, EngineError, InvalidSpec, TensorMismatch
from phoneward.runtime.cascade_flow import check_cascade, exits_of
from phoneward.spec import TensorSpec, logits_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.runtime.stages import Arrays, Runner


@dataclass(frozen=True)
class Rows:
    """An output of some of the images: `array` (n, ...) in the layout of the artifact.

    `images` (n,) says whose rows they are; None: those of all images, in order.
    """

    images: NDArray[np.intp] | None
    array: NDArray[Any]


@dataclass(frozen=True)
class Answers:
    """What a cascade says of B images.

    `logits` are (B, K), each row by the stage that its image left at: `stages[answered[i]]`.
    `rows` has all other outputs by name, as often as a stage returned one of that name.
    """

    logits: NDArray[Any]
    stages: tuple[str, ...]
    answered: NDArray[np.intp]
    rows: Mapping[str, Sequence[Rows]]

    @property
    def exited(self) -> NDArray[np.bool_]:
        """Which images left before the last stage, shape (B,)."""
        return self.answered < len(self.stages) - 1

    @cached_property
    def others(self) -> Mapping[str, Mapping[int, NDArray[Any]]]:
        """All other outputs by name, then by index of the image, without the batch axis.

        They are the last ones of that name which were computed for the image.
        """
        found: dict[str, dict[int, NDArray[Any]]] = {}
        for name, parts in self.rows.items():
            own = found.setdefault(name, {})
            for part in parts:
                images = range(len(part.array)) if part.images is None else part.images.tolist()
                own.update(zip(images, part.array, strict=True))
        return found


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
        self._scores = {name: spec.name for name, spec in found.items() if spec is not None}
        # looked up once: an answer may take no longer than the reading of a spec
        last = cast(TensorSpec, found[self.stages[-1]])
        self._answer = last.shape[1:], np.dtype(last.dtype)
        self._expected = {
            name: (spec.shape[1:], np.dtype(spec.dtype)) for name, spec in self._inputs.items()
        }
        self._taken = {n: tuple(s.name for s in runner.inputs) for n, runner in runners.items()}
        self._sizes = {name: runner.inputs[0].shape[0] for name, runner in runners.items()}

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that callers give, as the first stage that takes each has them."""
        return tuple(self._inputs.values())

    @property
    def batches(self) -> tuple[int, ...]:
        """How many images each stage takes at once."""
        return tuple(self._sizes.values())

    def __call__(self, tensors: Arrays) -> Answers:
        """Answer B images: tensors by name, each (B, *shape[1:]) of its spec in `inputs`.

        Raises:
            TensorMismatch: a tensor is missing, unknown, of another shape or dtype, or of more
                images than others.
            EngineError: a stage failed, or not all that it returned is finite.
        """
        count = self._count(tensors)
        going = everyone = np.arange(count)
        logits, answered = self._nothing_yet(count)
        rows: dict[str, list[Rows]] = {}
        if not count:
            return Answers(logits, self.stages, answered, rows)
        known = dict(tensors)
        for number, name in enumerate(self.stages):
            outputs = self._run(name, known, len(going))
            known |= outputs
            scores = self._scores.get(name)
            whose = None if going is everyone else going
            for output, array in outputs.items():
                if output != scores:
                    rows.setdefault(output, []).append(Rows(whose, array))
            if scores is None:
                continue
            leaving = self._leaving(name, outputs[scores])
            if leaving is None and whose is None:  # none left before, all leave now
                answered[:] = number
                return Answers(outputs[scores], self.stages, answered, rows)
            if leaving is None:  # all that are left
                logits[going], answered[going] = outputs[scores], number
                break
            if leaving.any():
                logits[going[leaving]] = outputs[scores][leaving]
                answered[going[leaving]] = number
                going = going[~leaving]
                known = {key: array[~leaving] for key, array in known.items()}
        return Answers(logits, self.stages, answered, rows)

    def _nothing_yet(self, count: int) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Logits and stages of images that no stage has answered."""
        shape, dtype = self._answer
        return np.zeros((count, *shape), dtype), np.zeros(count, np.intp)

    def _count(self, tensors: Arrays) -> int:
        if tensors.keys() != self._inputs.keys():
            raise TensorMismatch(
                f"takes the tensors {', '.join(self._inputs)}; got {', '.join(tensors)}"
            )
        counts = {len(array) for array in tensors.values()}
        if len(counts) != 1:
            raise TensorMismatch(f"the tensors are of different numbers of images: {counts}")
        (count,) = counts
        for name, (shape, dtype) in self._expected.items():
            array = tensors[name]
            if array.shape[1:] != shape or array.dtype != dtype:
                spec = self._inputs[name]
                spec.model_copy(update={"shape": (count, *shape)}).check(array)
        return count

    def _run(self, name: str, known: Arrays, count: int) -> Arrays:
        runner, size = self._runners[name], self._sizes[name]
        taken = {key: known[key] for key in self._taken[name]}
        if count == size:
            outputs = runner(taken)
        else:
            chunks = [
                runner({key: _filled(array[i : i + size], size) for key, array in taken.items()})
                for i in range(0, count, size)
            ]
            outputs = {key: np.concatenate([c[key] for c in chunks])[:count] for key in chunks[0]}
        for output, array in outputs.items():
            if not np.isfinite(array).all():
                raise EngineError(f"stage '{name}': not all {output} are finite")
        return outputs

    def _leaving(self, name: str, scores: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Which of the images leave with these logits; None: all of them."""
        if name not in self.exits or self.exit_entropy is None:
            return None
        certain = np.asarray(entropy(scores) < self.exit_entropy)
        return None if certain.all() else certain


def check_entropy(threshold: float, exits: Sequence[str]) -> None:
    """Raise `InvalidSpec` unless there are exits and a threshold in nats is a number from 0 on."""
    if not exits:
        raise InvalidSpec("no stage but the last gives logits: without an exit no entropy decides")
    if not threshold >= 0:
        raise InvalidSpec(f"an exit entropy is at least 0 nats, not {threshold}")


def entropy(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Shannon entropy of the softmax of finite logits (..., K), in nats, from 0 to ln K."""
    # reductions by their functions: an exit asks this of single images, which take microseconds
    top = np.maximum.reduce(logits, axis=-1, keepdims=True)
    shifted = np.subtract(logits, top, dtype=np.float64)
    powers = np.exp(shifted)
    total = np.add.reduce(powers, axis=-1)
    return np.asarray(np.log(total) - np.add.reduce(powers * shifted, axis=-1) / total)


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Scores from 0 to 1 of finite logits (..., K)."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float64)


def _filled(rows: NDArray[Any], size: int) -> NDArray[Any]:
    missing = size - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows

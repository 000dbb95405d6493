"""The most capable choice whose predicted latency meets a target; or why there is none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from phoneward.errors import InvalidSpec, PredictionError, TargetMissed
from phoneward.export.models.family import ModelCard
from phoneward.export.recipe import Recipe
from phoneward.export.request import ExportRequest, make_request
from phoneward.export.target.choice import Choice, Predict, Priced, price
from phoneward.export.target.order import Fixed, memories_of, smallest, variants_of
from phoneward.names import Precision


@dataclass(frozen=True)
class Wanted:
    """A model within `target_ms` a frame on a device, and what of it is not to be chosen.

    `formats` and `precisions` narrow down what the device takes; knobs that are `fixed` stay;
    `any_variant` allows for other models of the family.
    """

    model: str
    device: str
    target_ms: float
    weights: str = "pretrained"
    formats: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ()
    fixed: Fixed = field(default_factory=Fixed)
    any_variant: bool = False


@dataclass(frozen=True)
class Decision:
    """What was chosen.

    `passed_over` has what is more capable and was predicted to take too long, in the order of
    trying; `sure` says whether the whole interval meets the target.
    """

    wanted: Wanted
    chosen: Priced
    passed_over: tuple[Priced, ...]

    @property
    def sure(self) -> bool:
        """Does the upper end of the interval meet the target too?"""
        return self.chosen.frame.interval_ms[1] <= self.wanted.target_ms

    def request(self) -> ExportRequest:
        """Ask for what was chosen, and nothing else."""
        card, recipe = self.chosen.choice.card, self.chosen.choice.recipe
        return make_request(
            card.name,
            self.wanted.weights,
            [self.wanted.device],
            [recipe.format],
            [recipe.precision],
            card.knobs,
        )


class Infeasible(TargetMissed):
    """Nothing that was allowed meets the target.

    Attributes:
        fastest: the fastest that was allowed.
        stage: name of its stage that takes longest.
        closest: what meets it with nothing fixed: the model itself, or else the most capable of
            its family. Where none does, the fastest of all.
        feasible: whether `closest` meets the target.
    """

    def __init__(self, wanted: Wanted, fastest: Priced, closest: Priced) -> None:
        self.wanted, self.fastest, self.closest = wanted, fastest, closest
        self.stage, longest = fastest.slowest
        self.feasible = closest.frame.latency_ms <= wanted.target_ms
        if self.feasible:
            instead = f"closest that is feasible: {closest.choice}, {words(closest)}"
        elif closest.choice == fastest.choice:
            instead = "nothing of its family is faster"
        else:
            instead = f"nor does its family, at best {closest.choice}, {words(closest)}"
        super().__init__(
            f"no choice of {wanted.model} meets {wanted.target_ms:g} ms on {wanted.device}: of the "
            f"fastest, {fastest.choice}, {words(fastest)}, {self.stage} alone takes "
            f"{longest.latency_ms:.3g} ms; {instead}"
        )


def words(priced: Priced) -> str:
    """Say a predicted time with its interval."""
    low, high = priced.frame.interval_ms
    level = f"{priced.frame.level:.0%}"
    return f"{priced.frame.latency_ms:.3g} ms (predicted; {level} between {low:.3g} and {high:.3g})"


def choose(wanted: Wanted, predict: Predict) -> Decision:
    """Return the first choice in the order of `order.ORDER` whose median meets the target.

    Raises:
        Infeasible: there is none.
        InvalidSpec: the target is no time, or the model has no such knob.
        UnknownName: no such model or device.
        PredictionError: nothing that is allowed can be predicted on the device.
    """
    if not 0 < wanted.target_ms < float("inf"):
        raise InvalidSpec(f"a latency target is a time above 0 ms, not {wanted.target_ms:g}")
    if wanted.any_variant and wanted.weights not in ("pretrained", "random"):
        raise InvalidSpec("a weights file fits one variant: give it without --any-variant")
    variants = variants_of(wanted.model) if wanted.any_variant else ()
    search = _Search(wanted, predict)
    request = _request(wanted)
    found = search.first(variants or (request.model,), wanted.fixed, request.recipes)
    if found is not None:
        return Decision(
            wanted, found, tuple(p for p in search.priced if p.frame.latency_ms > wanted.target_ms)
        )
    if not search.priced:
        raise search.refused or PredictionError(f"nothing can be predicted on {wanted.device}")
    raise Infeasible(wanted, _fastest(search.priced), _closest(wanted, predict))


def _fastest(priced: Sequence[Priced]) -> Priced:
    return min(priced, key=lambda one: one.frame.latency_ms)


def _closest(wanted: Wanted, predict: Predict) -> Priced:
    itself = _request(wanted).model
    family = (itself, *(card for card in variants_of(wanted.model) if card.name != itself.name))
    free = dataclasses.replace(wanted, formats=(), precisions=(), fixed=Fixed())
    search = _Search(free, predict)
    return search.first(family, Fixed(), _request(free).recipes) or _fastest(search.priced)


def _request(wanted: Wanted) -> ExportRequest:
    """The model as its weights want it, and what the device takes of what is allowed, in order."""
    return make_request(
        wanted.model, wanted.weights, [wanted.device], wanted.formats, wanted.precisions
    )


@dataclass
class _Search:
    """Looks through choices in order; `priced` has what was looked at, in that order."""

    wanted: Wanted
    predict: Predict
    priced: list[Priced] = field(default_factory=list)
    refused: PredictionError | None = None

    def first(
        self, variants: Iterable[ModelCard], fixed: Fixed, recipes: Sequence[Recipe]
    ) -> Priced | None:
        """Return the first that meets the target, or None."""
        for variant in variants:
            memories = list(memories_of(variant, fixed))
            # where the fastest fails the others need no look
            if self._among(smallest(memories), recipes) is None:
                continue
            for card in memories:
                if (found := self._among(card, recipes)) is not None:
                    return found
        return None

    def _among(self, card: ModelCard, recipes: Sequence[Recipe]) -> Priced | None:
        for recipe in recipes:
            try:
                priced = price(Choice(card, recipe), self.wanted.device, self.predict)
            except PredictionError as error:
                self.refused = self.refused or error
                continue
            if priced.frame.latency_ms <= self.wanted.target_ms:
                return self._noted(priced)
            self._noted(priced)
        return None

    def _noted(self, priced: Priced) -> Priced:
        if priced not in self.priced:
            self.priced.append(priced)
        return priced

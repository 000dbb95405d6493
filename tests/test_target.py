"""The most capable choice that meets a latency target, by a price that counts work alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from phoneward.errors import InvalidSpec, PredictionError, TargetMissed, UnknownName
from phoneward.export.models import cards, find
from phoneward.export.models.family import Knobs
from phoneward.export.target import choice as choices
from phoneward.export.target.order import MEMORY, TRACKERS, Fixed, memories_of, variants_of
from phoneward.export.target.search import Decision, Infeasible, Wanted, choose
from phoneward.names import Precision
from phoneward.profiles.kernels import Kernel, StageKernels
from phoneward.profiles.predict.predictor import Target
from phoneward.profiles.report.schema import Predicted

# milliseconds a stage by model: what a price list would say, with the memory of `propagate` on top
MODELS = {
    "efficienttam_s": 100.0,
    "efficienttam_s_512x512": 20.0,
    "efficienttam_ti": 50.0,
    "efficienttam_ti_512x512": 10.0,
    "efficientformerv2_s0": 1.0,
    "efficientformerv2_s1": 2.0,
    "efficientformerv2_s2": 4.0,
    "efficientformerv2_l": 8.0,
}
A_SLOT = 4.0


@pytest.fixture(autouse=True)
def _work_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs whose only kernel has a microsecond in each MAC: tracing is tested elsewhere."""

    def kernels(card: object, stage: str, recipe: object) -> StageKernels:
        model = cards()[getattr(card, "name", "")]
        knobs: Knobs = getattr(card, "knobs", Knobs())
        milliseconds = MODELS.get(model.name, 1000.0)
        if stage == "propagate":
            slots = knobs.memory_slots or 7
            share = 0.25 if knobs.pooled_memory else 1.0
            milliseconds += A_SLOT * slots * share + knobs.object_pointers
        work = Kernel(kind="linear", ops=("aten.linear",), macs=int(1000 * milliseconds))
        return StageKernels(stage=stage, kernels=(work,))

    monkeypatch.setattr(choices, "kernels_of_stage", kernels)


def price(stages: Sequence[StageKernels], target: Target) -> Predicted:
    """Core ML takes what the work says, ExecuTorch half as long again, nothing else is known."""
    rates = {"coreml": 1.0, "executorch": 1.5}
    if target.runtime not in rates:
        raise PredictionError(f"nothing is known of {target.runtime}")
    macs = sum(kernel.macs for stage in stages for kernel in stage.kernels)
    ms = macs / 1000 * rates[target.runtime]
    return Predicted(latency_ms=ms, interval_ms=(0.9 * ms, 1.2 * ms), basis="work")


def wanted(model: str, target_ms: float, **more: object) -> Wanted:
    return Wanted(model, "iphone-15-pro", target_ms, "random", **more)  # type: ignore[arg-type]


def chosen(decision: Decision) -> tuple[str, str, Knobs]:
    made = decision.chosen.choice
    return made.card.name, str(made.recipe), made.card.knobs


def test_the_model_as_it_is_comes_first() -> None:
    decision = choose(wanted("efficienttam_ti_512x512", 59), price)
    assert chosen(decision) == ("efficienttam_ti_512x512", "coreml-fp16", Knobs())
    # encode, propagate with seven slots and pointers, memorize; no prompt
    assert [name for name, _ in decision.chosen.stages] == ["encode", "propagate", "memorize"]
    assert decision.chosen.frame.latency_ms == pytest.approx(10 + (10 + 28 + 1) + 10)
    assert not decision.sure
    assert choose(wanted("efficienttam_ti_512x512", 71), price).sure


@pytest.mark.parametrize(
    ("target_ms", "knobs"),
    [
        (58, Knobs(pooled_memory=True)),
        (37, Knobs(memory_slots=4, pooled_memory=True)),
        (33, Knobs(memory_slots=2, pooled_memory=True)),
        (34.9, Knobs(memory_slots=2, pooled_memory=True)),
        (32.5, Knobs(2, pooled_memory=True, object_pointers=False)),
    ],
)
def test_memory_is_cut_no_more_than_the_target_asks(target_ms: float, knobs: Knobs) -> None:
    decision = choose(wanted("efficienttam_ti_512x512", target_ms), price)
    assert chosen(decision)[2] == knobs
    assert all(p.frame.latency_ms > target_ms for p in decision.passed_over)


def test_knobs_that_were_given_stay() -> None:
    fixed = Fixed(memory_slots=3, object_pointers=False)
    decision = choose(wanted("efficienttam_ti_512x512", 40, fixed=fixed), price)
    assert chosen(decision)[2] == Knobs(3, pooled_memory=True, object_pointers=False)
    plain = Fixed(memory_slots=3, pooled_memory=False, object_pointers=True)
    with pytest.raises(Infeasible):
        choose(wanted("efficienttam_ti_512x512", 40, fixed=plain), price)


def test_a_format_that_was_asked_for_stays() -> None:
    decision = choose(wanted("efficientformerv2_s0", 5, formats=("executorch",)), price)
    assert chosen(decision)[1] == "executorch-fp32"
    precise = wanted("efficientformerv2_s0", 5, precisions=(Precision.FP32,))
    assert chosen(choose(precise, price))[1] == "executorch-fp32"
    assert chosen(choose(wanted("efficientformerv2_s0", 5), price))[1] == "coreml-fp16"


def test_the_request_asks_for_what_was_chosen_alone() -> None:
    decision = choose(wanted("efficienttam_ti_512x512", 33), price)
    request = decision.request()
    assert [str(recipe) for recipe in request.recipes] == ["coreml-fp16"]
    assert request.model.knobs == Knobs(memory_slots=2, pooled_memory=True)
    assert request.weights == "random"


def test_another_variant_only_where_that_is_allowed() -> None:
    with pytest.raises(Infeasible):
        choose(wanted("efficientformerv2_l", 5), price)
    decision = choose(wanted("efficientformerv2_s0", 5, any_variant=True), price)
    assert chosen(decision)[0] == "efficientformerv2_s2"
    decision = choose(wanted("efficientformerv2_l", 2, any_variant=True), price)
    assert chosen(decision)[0] == "efficientformerv2_s1"


def test_what_is_infeasible_names_the_stage_and_the_closest() -> None:
    with pytest.raises(TargetMissed) as caught:
        choose(wanted("efficienttam_s", 68), price)
    missed = caught.value
    assert isinstance(missed, Infeasible)
    assert missed.exit_code == 3
    assert missed.stage == "propagate"
    assert str(missed.fastest.choice) == (
        "efficienttam_s as coreml-fp16, 2 memory slots, pooled memory, no object pointers"
    )
    assert missed.feasible
    assert missed.closest.choice.card.name == "efficienttam_s_512x512"
    assert missed.closest.choice.card.knobs == Knobs(pooled_memory=True)
    assert "propagate alone takes 102 ms" in str(missed)
    assert "closest that is feasible: efficienttam_s_512x512" in str(missed)


def test_the_same_model_with_nothing_fixed_is_closest() -> None:
    fixed = Fixed(memory_slots=7, pooled_memory=False)
    with pytest.raises(Infeasible) as caught:
        choose(wanted("efficienttam_ti_512x512", 57, fixed=fixed), price)
    assert caught.value.closest.choice.card.knobs == Knobs(pooled_memory=True)


def test_where_the_whole_family_is_too_slow_its_fastest_is_named() -> None:
    with pytest.raises(Infeasible, match="nor does its family, at best efficientformerv2_s0") as c:
        choose(wanted("efficientformerv2_l", 0.5), price)
    assert not c.value.feasible
    with pytest.raises(Infeasible, match="nothing of its family is faster"):
        choose(wanted("efficientformerv2_s0", 0.5), price)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda: wanted("efficientformerv2_s0", 0), InvalidSpec, "above 0 ms"),
        (lambda: wanted("efficientformerv2_s0", float("nan")), InvalidSpec, "above 0 ms"),
        (lambda: wanted("efficientformerv2_s0", float("inf")), InvalidSpec, "above 0 ms"),
        (lambda: wanted("efficientformer", 5), UnknownName, "unknown model"),
        (lambda: Wanted("efficientformerv2_s0", "nokia", 5, "random"), UnknownName, "nokia"),
        (
            lambda: wanted("efficientformerv2_s0", 5, fixed=Fixed(memory_slots=2)),
            InvalidSpec,
            "remembers nothing",
        ),
        (
            lambda: Wanted("efficientformerv2_s0", "iphone-12", 5, "w.pt", any_variant=True),
            InvalidSpec,
            "fits one variant",
        ),
        (
            lambda: Wanted("efficientformerv2_s0", "pixel-8", 5, "random", formats=("tflite",)),
            PredictionError,
            "nothing is known of tflite",
        ),
    ],
)
def test_bad_input(ask: Callable[[], Wanted], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        choose(ask(), price)


@pytest.mark.parametrize("model", cards())
def test_every_model_has_an_order(model: str) -> None:
    """The contract of the order: every model is in it once, the last memory is the smallest."""
    variants = [card.name for card in variants_of(model)]
    assert variants.count(model) == 1
    card = find(model)[0]
    memories = [turned.knobs for turned in memories_of(card, Fixed())]
    assert memories[0] == Knobs()
    if card.family == "efficienttam":
        assert set(variants) == (set(TRACKERS) if model in TRACKERS else {model})
        assert set(memories) <= set(MEMORY)
        pools = not card.name.endswith(("_1", "_2", "_nano"))  # the others do so anyway
        assert any(knobs.pooled_memory for knobs in memories) is pools
    else:
        assert memories == [Knobs()]
        accuracies = [find(name)[0].top1_percent or 0.0 for name in variants]
        assert accuracies == sorted(accuracies, reverse=True)

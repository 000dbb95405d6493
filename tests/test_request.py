"""A request names artifacts exactly, and says what is wrong before anything heavy starts."""

from __future__ import annotations

import importlib.util

import pytest

from phoneward.errors import InvalidSpec, MissingExtra, UnknownName, WeightsError
from phoneward.export.models import find
from phoneward.export.models.efficienttam.family import variant_of
from phoneward.export.models.family import AS_IS, Knobs
from phoneward.export.recipe import Recipe
from phoneward.export.request import make_request
from phoneward.names import Precision

FP16, FP32 = Precision.FP16, Precision.FP32
MODEL = "mobilenetv2_100"
TAM = "efficienttam_ti_512x512"


def test_devices_decide_formats_precisions_and_targets() -> None:
    request = make_request(MODEL, "random", ["iphone-15-pro", "pixel-8"])
    assert request.recipes[0] == Recipe("coreml", FP16, "iOS17")
    assert {str(r) for r in request.recipes} == {
        "coreml-fp16",
        "executorch-fp32",
        "tflite-fp32",
        "tflite-fp16",
    }
    assert all(r.target is None for r in request.recipes[1:])


@pytest.mark.parametrize("order", [1, -1])
def test_two_phones_share_the_artifact_that_runs_on_both(order: int) -> None:
    devices = ["iphone-12", "iphone-16-pro"][::order]
    request = make_request(MODEL, "random", devices, ["coreml"])
    assert request.recipes == (Recipe("coreml", FP16, "iOS17"),)
    alone = make_request(MODEL, "random", ["iphone-16-pro"], ["coreml"])
    assert alone.recipes == (Recipe("coreml", FP16, "iOS18"),)


def test_formats_and_precisions_narrow_a_device_down() -> None:
    request = make_request(MODEL, "random", ["pixel-8"], ["tflite"], [FP16])
    assert request.recipes == (Recipe("tflite", FP16),)


def test_formats_alone_are_made_at_every_precision_asked_for() -> None:
    request = make_request(MODEL, "random", (), ["onnx", "coreml"], [FP32, FP16])
    assert [str(r) for r in request.recipes] == [
        "onnx-fp32",
        "onnx-fp16",
        "coreml-fp32",
        "coreml-fp16",
    ]
    assert make_request(MODEL, "random", (), ["onnx"]).recipes == (Recipe("onnx", FP32),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("resnet50", "random", ["pixel-8"]),
            "unknown model 'resnet50'; known: efficienttam_ti",
        ),
        ((MODEL, "random", ["nokia"]), "unknown device 'nokia'; known: .*galaxy-s24"),
        ((MODEL, "random", [], ["onnxx"]), "unknown format 'onnxx'; known: coreml, executorch"),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(arguments, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UnknownName, match=message):
        make_request(*arguments)


def test_nothing_to_export_is_an_error() -> None:
    with pytest.raises(InvalidSpec, match="at least one --device or --format"):
        make_request(MODEL, "random")


@pytest.mark.parametrize(
    ("devices", "formats", "precisions", "message"),
    [
        (["pixel-8"], ["coreml"], [], "nothing to export for pixel-8: it takes tflite-fp32"),
        (["iphone-12", "pixel-8"], ["coreml"], [], "nothing to export for pixel-8"),
        (["iphone-12"], ["coreml"], [FP16, FP32], "nothing to export as fp32: iphone-12 would"),
        (["pixel-8"], ["coreml", "tflite"], [FP16], "nothing to export as coreml: pixel-8 would"),
    ],
)
def test_what_is_named_is_made_or_refused(
    devices: list[str], formats: list[str], precisions: list[Precision], message: str
) -> None:
    with pytest.raises(InvalidSpec, match=message):
        make_request(MODEL, "random", devices, formats, precisions)


@pytest.mark.parametrize("absent", ["coremltools", "timm"])
def test_a_package_that_is_missing_is_named_before_anything_starts(
    absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == absent else find(name)
    )
    with pytest.raises(MissingExtra, match=rf"{absent}.*pip install 'phoneward\["):
        make_request(MODEL, "random", ["iphone-12"])


def tam(knobs: Knobs, model: str = TAM) -> dict[str, tuple[int, ...]]:
    """Shapes of what `propagate` takes."""
    card = make_request(model, "random", (), ["onnx"], (), knobs).model
    assert card.name == model
    (stage,) = (stage for stage in card.stages if stage.name == "propagate")
    return {tensor.name: tensor.shape for tensor in stage.inputs}


def test_knobs_reshape_the_bank() -> None:
    assert tam(AS_IS)["memory"] == (1, 64, 7 * 1024)
    assert tam(Knobs(memory_slots=3))["memory"] == (1, 64, 3 * 1024)
    assert tam(Knobs(memory_slots=16))["memory_age"] == (1, 16)
    assert tam(Knobs(pooled_memory=True)) == tam(AS_IS)
    assert set(tam(AS_IS)) - set(tam(Knobs(object_pointers=False))) == {"pointers", "pointer_valid"}
    assert tam(Knobs(memory_slots=1), "efficienttam_s_1")["memory"] == (1, 64, 4096)


def test_knobs_reach_the_variant_and_what_the_host_is_told() -> None:
    card, family = find(TAM)
    plain = {
        "image_size": 512,
        "memory_slots": 7,
        "pointer_slots": 16,
        "point_slots": 16,
        "memory_channels": 64,
        "pooling": "none",
    }
    assert family.constants(card) == plain
    turned = family.configure(card, Knobs(3, pooled_memory=True, object_pointers=False))
    changes = {"memory_slots": 3, "pointer_slots": 0, "pooling": "logits"}
    assert family.constants(turned) == plain | changes
    variant = variant_of(turned)
    assert (variant.slots, variant.pooling, variant.pointers) == (3, "logits", False)
    assert family.constants(find("efficienttam_s_2")[0])["pooling"] == "keys"
    classifier, others = find(MODEL)
    assert others.constants(classifier) == {}


def test_the_models_own_number_of_slots_changes_nothing() -> None:
    request = make_request(TAM, "random", (), ["onnx"], (), Knobs(memory_slots=7))
    assert request == make_request(TAM, "random", (), ["onnx"])


@pytest.mark.parametrize(
    ("model", "knobs", "message"),
    [
        (TAM, Knobs(0), "memory slots must be 1 to 16, not 0"),
        (TAM, Knobs(17), "memory slots must be 1 to 16, not 17"),
        (TAM, Knobs(1, pooled_memory=True), "the only memory of a bank is never pooled"),
        (
            "efficienttam_s_1",
            Knobs(pooled_memory=True),
            "_s_1 pools its memory already",
        ),
        ("efficienttam_ti_2", Knobs(4, True), "_ti_2 pools its memory already"),
        (MODEL, Knobs(7), f"{MODEL} remembers nothing"),
        (MODEL, Knobs(object_pointers=False), f"{MODEL} remembers nothing"),
    ],
)
def test_knobs_that_the_model_does_not_have(model: str, knobs: Knobs, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        make_request(model, "random", (), ["onnx"], (), knobs)


def test_a_checkpoint_named_after_another_model_is_refused() -> None:
    with pytest.raises(WeightsError, match="name of efficienttam_ti_1, not of .*512x512: export"):
        make_request(TAM, "there/efficienttam_ti_1.pt", (), ["onnx"])
    for weights in (f"there/{TAM}.pt", "mine.pt", "random", "pretrained"):
        assert make_request(TAM, weights, (), ["onnx"]).weights == weights

"""A request names artifacts exactly, and says what is wrong before anything heavy starts."""

from __future__ import annotations

import importlib.util

import pytest

from phoneward.errors import InvalidSpec, MissingExtra, UnknownName
from phoneward.export.recipe import Recipe
from phoneward.export.request import make_request
from phoneward.names import Precision

FP16, FP32 = Precision.FP16, Precision.FP32
MODEL = "mobilenetv2_100"


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
            "unknown model 'resnet50'; known: efficientformer_l1",
        ),
        ((MODEL, "random", ["nokia"]), "unknown device 'nokia'; known: galaxy-s24"),
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

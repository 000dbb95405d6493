"""Every rule about a cliff fires where its evidence is from, and not beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pytest

from phoneward.profiles.device import load_device
from phoneward.profiles.kernels import Kernel, StageKernels
from phoneward.profiles.predict.cliffs import Rule, cliffs, rules, where, with_cliffs
from phoneward.profiles.predict.group import NUMERICS, UNITS, Group, numeric_of
from phoneward.profiles.predict.socs import soc_name, socs
from phoneward.profiles.report.schema import Predicted, Share

TOKENS = (
    Kernel(kind="linear", ops=("aten.linear",), in_shape=(1, 196, 64), activation="hardswish"),
    Kernel(kind="softmax", ops=("aten.softmax",), in_shape=(1, 4, 196, 196)),
)
MANY = (Kernel(kind="softmax", ops=("aten.softmax",), in_shape=(1, 4, 1024, 1024)),)
PLAIN = (Kernel(kind="linear", ops=("aten.linear",), in_shape=(1, 196, 64), activation="gelu"),)
LARGE = (Kernel(kind="depthwise", ops=("aten.conv2d",), in_shape=(1, 48, 512, 512)),)
SMALL = (Kernel(kind="depthwise", ops=("aten.conv2d",), in_shape=(1, 48, 112, 112)),)


@dataclass(frozen=True)
class Case:
    """A set-up: device, unit, runtime, precision and kernels."""

    device: str
    unit: str
    runtime: str
    precision: str
    kernels: tuple[Kernel, ...] = PLAIN

    def names(self) -> set[str]:
        soc = soc_name(load_device(self.device).soc)
        group = Group(self.unit, soc, self.device, self.runtime, numeric_of(self.precision))
        stage = StageKernels(stage="model", kernels=self.kernels)
        return {rule.name for rule in cliffs([stage], where(group, self.device, self.precision))}


GEN4 = "snapdragon-7-gen-4-qrd"
ORT = Case(GEN4, "npu", "onnxruntime", "int8")
FLOAT = Case("rb3-gen-2", "npu", "qnn", "fp16")
ATTENTION = Case(GEN4, "npu", "tflite", "int8", TOKENS)
ENCODER = Case("galaxy-s22", "npu", "qnn", "w8a8", LARGE)
MIXED = Case("galaxy-s24", "npu", "onnxruntime", "mixed")
SWISH = Case("iphone-12", "ane", "coreml", "fp16", TOKENS)
OFF_ANE = Case("iphone-14", "ane", "coreml", "fp16", MANY)
INT8 = Case("raspberry-pi-4", "cpu", "tflite", "int8")
HALF = Case("raspberry-pi-zero-2-w", "cpu", "tflite", "fp16")

FIRES = {
    "onnxruntime-int-on-cpu": ORT,
    "no-float-on-npu": FLOAT,
    "int8-attention-off-small-npu": ATTENTION,
    "int8-image-encoder-on-v68-v69": ENCODER,
    "mixed-int16-off-npu": MIXED,
    "hard-swish-between-tokens-on-ane": SWISH,
    "many-tokens-on-ane": OFF_ANE,
    "int8-without-dot-product": INT8,
    "fp16-without-half-arithmetic": HALF,
}
SILENT = [
    ("onnxruntime-int-on-cpu", replace(ORT, device="galaxy-s24")),
    ("onnxruntime-int-on-cpu", replace(ORT, runtime="qnn")),
    # who predicts the CPU knows already, and counts nothing twice
    ("onnxruntime-int-on-cpu", replace(ORT, unit="cpu")),
    ("onnxruntime-int-on-cpu", replace(ORT, precision="fp32")),
    ("no-float-on-npu", replace(FLOAT, device="galaxy-s24")),
    ("no-float-on-npu", replace(FLOAT, precision="w8a8")),
    ("int8-attention-off-small-npu", replace(ATTENTION, kernels=SMALL)),
    ("int8-attention-off-small-npu", replace(ATTENTION, runtime="qnn")),
    ("int8-image-encoder-on-v68-v69", replace(ENCODER, kernels=SMALL)),
    ("int8-image-encoder-on-v68-v69", replace(ENCODER, device="galaxy-s24")),
    ("int8-image-encoder-on-v68-v69", replace(ENCODER, precision="fp16")),
    ("mixed-int16-off-npu", replace(MIXED, precision="w8a16")),
    ("mixed-int16-off-npu", replace(MIXED, runtime="qnn")),
    ("hard-swish-between-tokens-on-ane", replace(SWISH, kernels=PLAIN)),
    ("hard-swish-between-tokens-on-ane", replace(SWISH, unit="cpu")),
    ("many-tokens-on-ane", replace(OFF_ANE, kernels=TOKENS)),
    ("many-tokens-on-ane", replace(OFF_ANE, unit="gpu")),
    ("int8-without-dot-product", replace(INT8, device="raspberry-pi-5")),
    ("int8-without-dot-product", replace(INT8, precision="fp32")),
    ("fp16-without-half-arithmetic", replace(HALF, device="pixel-8")),
    ("fp16-without-half-arithmetic", replace(HALF, precision="fp32")),
]


@pytest.mark.parametrize("name", [rule.name for rule in rules()])
def test_a_rule_fires_where_its_evidence_is_from(name: str) -> None:
    assert name in FIRES[name].names()


@pytest.mark.parametrize(("name", "case"), SILENT)
def test_a_rule_is_silent_beside_its_conditions(name: str, case: Case) -> None:
    assert name not in case.names()


def test_every_rule_is_tried_both_ways() -> None:
    assert {name for name, _ in SILENT} == {rule.name for rule in rules()} == set(FIRES)


def test_a_usual_set_up_has_no_cliff() -> None:
    assert Case("galaxy-s24", "npu", "tflite", "fp32", LARGE + TOKENS).names() == set()
    assert Case("pixel-8", "cpu", "tflite", "int8", SMALL).names() == set()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_conditions_are_of_things_that_there_are(rule: Rule) -> None:
    assert set(rule.when.units) <= set(UNITS)
    assert set(rule.when.numerics) <= set(NUMERICS)
    assert all(soc in socs() for soc in rule.when.socs)
    assert rule.evidence
    assert all(re.search(r"\d|FullFP16", line) for line in rule.evidence), "evidence has figures"


def test_a_device_without_a_file_has_no_facts_to_ask_for() -> None:
    group = Group("cpu", "mystery", "my-phone", "tflite", "w8a8")
    asked = where(group, "my-phone", "int8")
    assert cliffs([StageKernels(stage="model", kernels=PLAIN)], asked) == ()


def prediction() -> Predicted:
    share = Share(name="model/a", kind="linear", latency_ms=2.0)
    return Predicted(
        latency_ms=2.0, interval_ms=(1.0, 4.0), basis="here", breakdown=(share,), cliffs=("one",)
    )


def test_a_factor_is_counted_everywhere_and_said() -> None:
    (rule,) = (rule for rule in rules() if rule.factor)
    changed = with_cliffs(prediction(), [rule])
    assert changed.latency_ms == pytest.approx(2 * rule.factor)
    assert changed.interval_ms == pytest.approx((rule.factor, 4 * rule.factor))
    assert sum(share.latency_ms for share in changed.breakdown) == pytest.approx(changed.latency_ms)
    assert changed.cliffs == ("one", rule.sentence())
    assert "counted: x13.2" in rule.sentence()


def test_a_warning_changes_no_figure() -> None:
    rule = next(rule for rule in rules() if not rule.factor)
    changed = with_cliffs(prediction(), [rule])
    assert changed == prediction().model_copy(update={"cliffs": ("one", rule.sentence())})
    assert with_cliffs(prediction(), []) == prediction()


def test_own_measurements_have_a_factor_in_already() -> None:
    (rule,) = (rule for rule in rules() if rule.factor)
    changed = with_cliffs(prediction(), [rule], counted=False)
    assert changed.latency_ms == prediction().latency_ms
    assert "counted" not in changed.cliffs[-1]

"""The main job for real: a variant of each family; with `matrix` all variants in every format."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from phoneward.errors import ConversionError
from phoneward.export.backends import BACKENDS
from phoneward.export.models import cards
from phoneward.export.pipeline import GateFailed, Options, export_bundle
from phoneward.export.request import make_request
from phoneward.names import ParityStatus, Precision
from phoneward.runtime.engines import engines_for

ONE_A_FAMILY = (
    "efficientformer_l1",
    "efficientformerv2_s0",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "mobilenetv3_small_100",
    "efficientnet_lite0",
)
# every family in one format or more, every format for one family or more; the rest is in the matrix
ALWAYS = {
    "coreml": ("efficientformer_l1", "mobilevit_xxs"),
    "onnx": ("efficientformerv2_s0", "mobilevitv2_050", "mobilenetv3_small_100"),
    "executorch": ("efficientnet_lite0",),
    "tflite": ("efficientnet_lite0",),
}
ONE_EACH = [
    pytest.param(
        model,
        format_name,
        marks=[] if model in ALWAYS[format_name] else [pytest.mark.matrix],
    )
    for model in ONE_A_FAMILY
    for format_name in BACKENDS
]
OTHERS = tuple(
    name for name, card in cards().items() if card.family == "hybrids" and name not in ONE_A_FAMILY
)


def check(model: str, format_name: str, folder: Path) -> None:
    weights = "pretrained" if model == "efficientnet_lite0" else "random"
    # int8 has its own test: random weights leave its gate little room
    precisions = [p for p in BACKENDS.get(format_name).precisions if p is not Precision.INT8]
    request = make_request(model, weights, (), [format_name], precisions)
    bundle = export_bundle(request, folder / "bundle", Options(use_cache=False))
    bundle.check_files()
    assert [a.precision for a in bundle.manifest.artifacts] == precisions
    for artifact in bundle.manifest.artifacts:
        parity = artifact.parity
        if not engines_for(format_name):
            assert parity.status is ParityStatus.NOT_EXECUTED
            continue
        assert parity.status is ParityStatus.OK
        assert parity.top1_agreement == 1.0
        assert parity.images == 5
        limit = 1e-4 if artifact.precision is Precision.FP32 else 2e-2
        assert 0 < parity.outputs[0].relative_error <= limit
        if format_name == "executorch":
            assert artifact.delegation is not None
            # at fp16 the image, and tokens that a norm reads in fp32, are cast at the rim
            rim = artifact.precision is Precision.FP16
            assert artifact.delegation.partitions <= 1 + rim
            assert (
                set(artifact.delegation.fallback) <= {"_to_dim_order_copy"}
                if rim
                else not (artifact.delegation.fallback)
            )


@pytest.mark.parametrize(("model", "format_name"), ONE_EACH)
def test_one_variant_of_each_family(model: str, format_name: str, tmp_path: Path) -> None:
    check(model, format_name, tmp_path)


@pytest.mark.matrix
@pytest.mark.parametrize("format_name", BACKENDS)
@pytest.mark.parametrize("model", OTHERS)
def test_every_other_variant(model: str, format_name: str, tmp_path: Path) -> None:
    check(model, format_name, tmp_path)


def test_a_wrong_artifact_fails_the_gate_and_leaves_no_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rewrite that changes the numbers a little must not get through."""
    import phoneward.export.rewrites as rewrites

    def spoil(model, names):  # type: ignore[no-untyped-def]
        model.body.classifier.bias.data[3] += 1
        return {}

    monkeypatch.setattr(rewrites, "apply_all", spoil)
    request = make_request("mobilenetv3_small_100", "random", (), ["onnx"])
    with pytest.raises(GateFailed, match="classify onnx-fp32") as caught:
        export_bundle(request, tmp_path / "out", Options(use_cache=False))
    (artifact,) = caught.value.artifacts
    assert artifact.parity.status is ParityStatus.FAILED
    assert "relative error" in (artifact.parity.reason or "")
    assert list(tmp_path.iterdir()) == []


def test_a_converters_failure_keeps_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path / "cache"))

    def refuse(graph, recipe, out):  # type: ignore[no-untyped-def]
        os.write(2, b"what the vendor says")
        raise RuntimeError("vendor trouble\nand its second line")

    monkeypatch.setattr(BACKENDS.get("onnx"), "lower", refuse)
    request = make_request("mobilenetv3_small_100", "random", (), ["onnx"])
    with pytest.raises(ConversionError, match="RuntimeError: vendor trouble") as caught:
        export_bundle(request, tmp_path / "out")
    assert caught.value.log is not None
    assert "what the vendor says" in caught.value.log.read_text()
    assert not (tmp_path / "out").exists()

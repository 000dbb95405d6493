"""Kernels of models by name: known figures, sizes, merged branches, errors, and the cache."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from phoneward.errors import InvalidSpec, UnknownName
from phoneward.export.kernels.names import kernels_by_name
from phoneward.export.recipe import Recipe
from phoneward.names import Precision

# GMACs and millions of parameters as their authors publish them
PUBLISHED = {
    "torchvision:mobilenet_v2@224": (0.301, 3.5),
    "plain:proxyless_mobile@224": (0.32, 4.1),
    "plain:mobilenet_v1_050@160": (0.077, 1.3),
}
PUBLISHED_OF_MORE = {
    "timm:efficientnet_b0@224": (0.39, 5.3),
    "timm:mobilenetv2_035@224": (0.059, 1.66),
    "timm:resnet50@224": (4.09, 25.6),
    "torchvision:vit_b_16@224": (17.56, 86.6),
    "timm:vit_base_patch16_224@224": (17.56, 86.6),
    "torchvision:convnext_tiny@224": (4.46, 28.6),
    "torchvision:densenet121@224": (2.83, 8.0),
    "torchvision:googlenet@224": (1.50, 6.6),
    "torchvision:squeezenet1_1@224": (0.35, 1.24),
    "torchvision:vgg16@224": (15.47, 138.4),
    "timm:efficientformer_l1@224": (1.3, 12.3),
    "timm:efficientformerv2_s1@224": (0.65, 6.2),
    "timm:mobilevit_s@256": (2.0, 5.6),
    "timm:mobileone_s0@224": (0.275, 2.1),
    "timm:repvit_m1_0@224": (1.1, 6.8),
    "timm:fastvit_t8@256": (0.7, 4.0),
    "timm:swiftformer_xs@224": (0.6, 3.5),
    "timm:shvit_s1@224": (0.241, 6.3),
}
DEEP = [pytest.param(name, marks=pytest.mark.matrix) for name in PUBLISHED_OF_MORE]


@pytest.mark.parametrize("name", [*PUBLISHED, *DEEP])
def test_published_figures(name: str) -> None:
    gmacs, millions = (PUBLISHED | PUBLISHED_OF_MORE)[name]
    (stage,) = kernels_by_name(name, use_cache=False)
    assert sum(kernel.macs for kernel in stage.kernels) == pytest.approx(gmacs * 1e9, rel=0.03)
    assert sum(kernel.params for kernel in stage.kernels) == pytest.approx(millions * 1e6, rel=0.03)
    assert not stage.unknown


def test_branches_are_merged_as_they_are_deployed() -> None:
    (stage,) = kernels_by_name("timm:mobileone_s0@64", use_cache=False)
    kinds = Counter(kernel.kind for kernel in stage.kernels)
    assert kinds["elementwise"] == 0  # no sums of branches
    assert kinds["depthwise"] == 21


def test_a_model_of_fixed_size_is_built_for_the_size_asked_for() -> None:
    (small,) = kernels_by_name("timm:vit_tiny_patch16_224@160", use_cache=False)
    assert small.kernels[0].in_shape == (1, 3, 160, 160)
    tokens = {k.out_shape[1] for k in small.kernels if k.kind == "norm"}
    assert tokens == {101}


def test_the_size_may_be_left_out() -> None:
    (stage,) = kernels_by_name("timm:mobilenetv3_small_050", use_cache=False)
    assert stage.kernels[0].in_shape == (1, 3, 224, 224)


def test_a_zoo_model_has_the_rewrites_of_the_recipe() -> None:
    (plain,) = kernels_by_name("efficientformerv2_s0", use_cache=False)
    recipe = Recipe("coreml", Precision.FP16, "iOS17")
    (rewritten,) = kernels_by_name("efficientformerv2_s0", recipe=recipe, use_cache=False)
    assert plain.stage == rewritten.stage == "classify"
    assert len(rewritten.kernels) < len(plain.kernels)
    assert sum(k.macs for k in plain.kernels) == pytest.approx(0.396e9, rel=0.01)


@pytest.mark.matrix
def test_a_tracker_has_all_of_its_stages() -> None:
    stages = kernels_by_name("efficienttam_ti_512x512", use_cache=False)
    assert [stage.stage for stage in stages] == ["encode", "prompt", "propagate", "memorize"]
    assert not any(stage.unknown for stage in stages)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("timm:resnet5o@224", "resnet50"),
        ("torchvision:mobilenetv2@224", "mobilenet_v2"),
        ("efficientformer_L1", "efficientformer_l1"),
        ("plain:mobilenet_v1_50", "mobilenet_v1_050"),
        ("tim:resnet50@224", "timm"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(name: str, near: str) -> None:
    with pytest.raises(UnknownName) as caught:
        kernels_by_name(name)
    assert near in caught.value.known
    assert len(caught.value.known) <= 8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet50@", "is no name of a model"),
        ("timm:resnet50@224x224", "is no name of a model"),
        ("timm:resnet50@3", "pixels a side"),
        ("timm:resnet50@9999", "pixels a side"),
        ("torchvision:vit_b_16@225", "divisible"),
        ("torchvision:fasterrcnn_resnet50_fpn@320", "no fixed graph"),
    ],
)
def test_what_has_no_kernels_says_why(name: str, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        kernels_by_name(name)


def test_the_second_time_is_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path))
    name = "plain:mobilenet_v1_025@64"
    made = kernels_by_name(name)
    (entry,) = tmp_path.glob("*/kernels.json")
    began = time.perf_counter()
    assert kernels_by_name(name) == made
    assert time.perf_counter() - began < 0.5
    entry.write_bytes(b"[]")  # a damaged entry counts as absent
    assert kernels_by_name(name) == made

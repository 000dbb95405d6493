"""LeNet, BranchyNet, CBNet: published sizes, stages that add up to the network, settings."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from phoneward.errors import InvalidSpec, WeightsError
from phoneward.export.models import cards, find
from phoneward.export.models.cbnet.family import SAMPLES, network
from phoneward.export.models.cbnet.networks import (
    Autoencoder,
    LeNet,
    LightNet,
    RectifiedPool,
    Trunk,
)
from phoneward.export.models.cbnet.settings import (
    PUBLISHED_AUTOENCODERS,
    HybridSize,
    LightSize,
    Settings,
    settings_of,
)
from phoneward.export.models.family import Knobs
from phoneward.export.recipe import Recipe
from phoneward.export.request import make_request
from phoneward.export.rewrites import apply_all
from phoneward.names import Precision

MODELS = ("lenet", "branchynet", "cbnet_light", "cbnet", "exit_hybrid")


def multiply_adds(model: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (LeNet(10), 1_140_070),
        (LightNet(10), 220_150),
        (LightNet(10, LightSize(stem=8, branch=16, downsampling="stride")), 103_488),
    ],
)
def test_the_published_networks_do_the_published_work(model: nn.Module, expected: int) -> None:
    assert multiply_adds(model.eval(), torch.rand(1, 1, 28, 28)) == expected


def test_the_published_autoencoder_does_the_published_work() -> None:
    model = Autoencoder(PUBLISHED_AUTOENCODERS["kmnist"])
    assert multiply_adds(model, torch.rand(1, 784)) == 762_880
    inner = model.encode(torch.randn(7, 784))
    assert [layer.shape[1] for layer in inner] == [512, 384, 256, 64]
    assert all((layer >= 0).all() for layer in inner[:-1])
    assert (inner[-1] < 0).any(), "the last inner layer is linear"
    out = model(torch.rand(7, 784))
    assert out.shape == (7, 784)
    assert ((out > 0) & (out < 1)).all()


@pytest.mark.parametrize("side", [30, 17, 15, 11, 1])
def test_pooling_counts_a_last_odd_row(side: int) -> None:
    x = torch.randn(2, 3, side, side)
    expected = F.relu(F.max_pool2d(x, 2, ceil_mode=True))
    assert torch.equal(RectifiedPool()(x), expected)


@pytest.mark.parametrize("name", MODELS)
def test_cards_state_the_number_of_parameters(name: str) -> None:
    model = network(name, Settings())
    assert cards()[name].parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [1, 3])
def test_stages_add_up_to_the_network(name: str, batch: int) -> None:
    card, family = find(name)
    card = family.batched(card, batch)
    modules = family.build(card, None)
    model = network(name, Settings()).eval()
    state = _state_of(name, modules)
    model.load_state_dict(state)
    images = torch.rand(batch, 1, 28, 28) * 255
    known = {"image": images}
    answers = []
    for stage in card.stages:
        with torch.no_grad():
            out = modules[stage.name](*(known[spec.name] for spec in stage.inputs))
        out = (out,) if isinstance(out, torch.Tensor) else out
        for spec, tensor in zip(stage.outputs, out, strict=True):
            assert tuple(tensor.shape) == spec.shape
            known[spec.name] = tensor
        answers.append(known["logits"])
    with torch.no_grad():
        expected = model(images / 255)
    if name == "cbnet":
        torch.testing.assert_close(known["converted"] / 255, expected[1], atol=1e-6, rtol=1e-5)
        expected = expected[0]
    expected = (expected,) if isinstance(expected, torch.Tensor) else expected
    for got, wanted in zip(answers, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def _state_of(name: str, modules: dict[str, nn.Module]) -> dict[str, torch.Tensor]:
    prefixes = {
        "cbnet": {"classify": ("body.model.", "")},
        "branchynet": {"exit": ("body.", ""), "finish": ("", "trunk.")},
        "exit_hybrid": {"exit": ("body.", "exit."), "finish": ("body.", "finish.")},
    }.get(name, {"classify": ("body.", "")})
    state = {}
    for stage, (off, on) in prefixes.items():
        for key, value in modules[stage].state_dict().items():
            if key.startswith(off) and not key.startswith("normalize."):
                state[on + key.removeprefix(off)] = value
    return state


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", list(Precision))
def test_rewrites_change_no_answer(name: str, precision: Precision) -> None:
    card, family = find(name)
    modules = family.build(card, None)
    rewrites = family.rewrites(card, Recipe("onnx", precision))
    for stage in card.stages:
        inputs = [torch.rand(spec.shape) * 255 for spec in stage.inputs]
        if stage.inputs[0].name == "features":
            inputs = [torch.rand(spec.shape) for spec in stage.inputs]
        with torch.no_grad():
            before = modules[stage.name](*inputs)
            places = apply_all(modules[stage.name], rewrites)
            after = modules[stage.name](*inputs)
        assert places["merge_linears"] == sum(
            isinstance(m, Trunk) for m in modules[stage.name].modules()
        )
        folds = stage.image is not None and not (name == "exit_hybrid" and stage.name == "finish")
        assert places.get("fold_image_scale", folds) == folds
        torch.testing.assert_close(after, before, atol=2e-4, rtol=2e-5)


def test_half_precision_keeps_the_scale_outside() -> None:
    card, family = find("lenet")
    assert "fold_image_scale" not in family.rewrites(card, Recipe("onnx", Precision.FP16))
    assert "fold_image_scale" in family.rewrites(card, Recipe("onnx", Precision.FP32))


def _weights(path: Path, settings: object, **more: torch.Tensor) -> Path:
    from safetensors.torch import save_file

    text = settings.model_dump_json() if isinstance(settings, Settings) else str(settings)
    model = network("cbnet", settings if isinstance(settings, Settings) else Settings())
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file({**state, **more}, path, {"phoneward": text} if settings else None)
    return path


SETTINGS = Settings(
    data="pets", labels=("cat", "dog", "emu"), autoencoder=(20, 8), exit_entropy=0.3
)


def test_a_weights_file_says_which_network_it_is(tmp_path: Path) -> None:
    samples = torch.arange(5 * 784).remainder(256).to(torch.uint8).view(5, 28, 28)
    file = _weights(tmp_path / "w.safetensors", SETTINGS, **{SAMPLES: samples})
    request = make_request("cbnet", str(file), (), ["onnx"], batch=2)
    card, family = request.model, find("cbnet")[1]
    assert card.stages[0].outputs[0].shape == (2, 3)
    assert card.parameters == sum(p.numel() for p in network("cbnet", SETTINGS).parameters())
    assert family.labels(card) == ("cat", "dog", "emu")
    assert family.constants(card) == {"trained_on": "pets"}
    from phoneward.export.weights import load, resolve

    modules = family.build(card, load(resolve(str(file), card)))
    examples = family.examples(card, modules)["classify"]
    assert examples.inputs["image"].shape == (4, 2, 1, 28, 28)
    assert examples.real.tolist() == [True, True, True, False]
    seen = examples.inputs["image"].reshape(8, 28, 28)
    np.testing.assert_array_equal(seen[:6], samples[[0, 1, 2, 3, 4, 0]].numpy())
    single = family.examples(family.batched(card, 1), modules)["classify"].inputs["image"]
    np.testing.assert_array_equal(seen[6:], single[5:].reshape(2, 28, 28))


def test_the_exit_entropy_is_a_constant_of_networks_with_an_exit() -> None:
    card, family = find("branchynet")
    assert family.constants(card) == {"exit_entropy": 0.05}


def test_a_file_without_settings_is_refused(tmp_path: Path) -> None:
    file = _weights(tmp_path / "w.safetensors", None)
    assert settings_of(file) is None
    with pytest.raises(WeightsError, match="says nothing of its classes and sizes"):
        make_request("cbnet", str(file), (), ["onnx"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "settings: Invalid JSON"),
        ('{"labels": ["a", "b"], "sizes": 3}', "sizes: Extra inputs"),
        ('{"labels": ["a"]}', "labels: Tuple should have at least 2 items"),
        ('{"autoencoder": [0]}', "autoencoder.0: Input should be greater than 0"),
        ('{"exit_entropy": -1}', "exit_entropy: Input should be greater"),
        ('{"labels": ["a", "b\\nc"]}', "settings: Value error, a label must not be empty"),
    ],
)
def test_settings_that_make_no_sense_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = _weights(tmp_path / "w.safetensors", text)
    with pytest.raises(WeightsError, match=message):
        settings_of(file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\1\0\0",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
        struct.pack("<Q", 20) + json.dumps({"__metadata__": 3}).ljust(20).encode(),
    ],
)
def test_headers_that_are_none_have_no_settings(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    assert settings_of(file) is None


def test_weights_of_other_sizes_are_refused(tmp_path: Path) -> None:
    file = _weights(tmp_path / "w.safetensors", SETTINGS)
    card, family = find("cbnet")
    from phoneward.export.weights import load, resolve

    with pytest.raises(WeightsError, match="weights do not fit cbnet"):
        family.build(card, load(resolve(str(file), card)))


@pytest.mark.parametrize("batch", [0, -1, 1025])
def test_a_batch_out_of_range_is_refused(batch: int) -> None:
    with pytest.raises(InvalidSpec, match="a batch is 1 to 1024 images"):
        make_request("lenet", "random", (), ["onnx"], batch=batch)


@pytest.mark.parametrize("name", ["mobilevit_xxs", "efficienttam_ti"])
def test_other_models_take_one_image_at_a_time(name: str) -> None:
    with pytest.raises(InvalidSpec, match="its graphs take one"):
        make_request(name, "random", (), ["onnx"], batch=2)


def test_nothing_here_has_a_memory() -> None:
    card, family = find("cbnet")
    with pytest.raises(InvalidSpec, match="remembers nothing"):
        family.configure(card, Knobs(pooled_memory=True))


def test_the_hybrid_takes_any_depth() -> None:
    settings = Settings(hybrid=HybridSize(widths=(8, 8, 16), transformers=(16, 16), depth=2))
    early, late = network("exit_hybrid", settings).eval()(torch.rand(2, 1, 28, 28))
    assert early.shape == late.shape == (2, 10)

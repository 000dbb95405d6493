"""`half_stream` leaves outputs unchanged and lets half precision hold what it could not before.

The algebra is proved in double precision, where 1e-10 leaves a wrong constant no room.
"""

from __future__ import annotations

import copy

import pytest

timm = pytest.importorskip("timm")
torch = pytest.importorskip("torch")

from phoneward.export.models.random_init import randomise  # noqa: E402
from phoneward.export.rewrites import apply_all  # noqa: E402

EFFICIENTFORMER = (
    "fold_layer_scale",
    "merge_heads",
    "pool_mixer",
    "biased_attention",
    "fuse_conv_norm",
    "efficientformer_rms",
)
MOBILEVIT = ("fuse_batch_norm", "mean_pool", "mobilevit_tokens", "mobilevit_rms")
CASES = [
    pytest.param("efficientformer_l1", EFFICIENTFORMER, 1, id="efficientformer"),
    pytest.param("mobilevit_xxs", MOBILEVIT, 3, id="mobilevit"),
]


def _model(name: str) -> torch.nn.Module:
    model = timm.create_model(name, pretrained=False).eval()
    randomise(model, (1, 3, 224, 224), seed=3)
    return model.requires_grad_(False)


def _image() -> torch.Tensor:
    return torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(7))


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / (expected.max() - expected.min()))


@pytest.mark.parametrize(("name", "plan", "streams"), CASES)
def test_outputs_are_unchanged(name: str, plan: tuple[str, ...], streams: int) -> None:
    model, image = _model(name).double(), _image().double()
    before = model(image)
    assert apply_all(model, (*plan, "half_stream"))["half_stream"] == streams
    assert _error(model(image), before) <= 1e-10


@pytest.mark.parametrize(("name", "plan", "streams"), CASES)
def test_a_second_pass_finds_nothing(name: str, plan: tuple[str, ...], streams: int) -> None:
    model = _model(name)
    apply_all(model, (*plan, "half_stream"))
    before = model(_image())
    assert apply_all(model, ("half_stream",)) == {"half_stream": 0}
    assert torch.equal(model(_image()), before)


def test_layer_norms_are_left_alone() -> None:
    assert apply_all(_model("efficientformer_l1"), ("half_stream",)) == {"half_stream": 0}


def _with_tokens_times(factor: float) -> torch.nn.Module:
    model = _model("efficientformer_l1")
    entry = model.stages[3].downsample.norm
    entry.weight.mul_(factor)
    entry.bias.mul_(factor)
    for block in model.stages[3].blocks:
        if hasattr(block, "ls1"):
            block.ls1.gamma.mul_(min(factor, 1))
            block.ls2.gamma.mul_(min(factor, 1))
    return model


@pytest.mark.parametrize("factor", [0.05, 1])
def test_a_quiet_stream_loses_nothing(factor: float) -> None:
    """Its squares must not fall below what half precision holds."""
    model, image = _with_tokens_times(factor), _image()
    expected = model(image)
    apply_all(model, (*EFFICIENTFORMER, "half_stream"))
    assert _error(model.half()(image.half()).float(), expected) < 5e-3


def test_a_stream_beyond_256_survives_half_precision() -> None:
    model, image = _with_tokens_times(100), _image()
    expected = model(image)
    apply_all(model, EFFICIENTFORMER)
    plain = copy.deepcopy(model).half()(image.half()).float()
    apply_all(model, ("half_stream",))
    scaled = model.half()(image.half()).float()
    assert _error(plain, expected) > 0.1
    assert _error(scaled, expected) < 5e-3


@pytest.mark.parametrize("kind", [torch.nn.SiLU, torch.nn.GELU, timm.layers.activations.GELU])
def test_activations_are_as_close_as_half_precision_tells(kind: type[torch.nn.Module]) -> None:
    """Over all halves from -20 to 20, the error is below the spacing of halves near 2 to 4."""
    model = torch.nn.Sequential(kind())
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.half)
    x = x[x.abs() <= 20].float()
    before = model(x)
    assert apply_all(model, ("half_activations",)) == {"half_activations": 1}
    assert float((model(x) - before).abs().max()) < 5e-4
    assert float((model.half()(x.half()).float() - before).abs().max()) < 2e-2
    assert apply_all(model, ("half_activations",)) == {"half_activations": 0}


def test_silu_is_exact() -> None:
    model = torch.nn.Sequential(torch.nn.SiLU()).double()
    x = torch.linspace(-20, 20, 1001, dtype=torch.double)
    before = model(x)
    apply_all(model, ("half_activations",))
    assert float((model(x) - before).abs().max()) < 1e-14

"""The MobileViT rewrites leave the logits unchanged and the graphs free of what engines lack.

The algebra is proved in double precision, where 1e-10 leaves a wrong constant no room; in single
precision a random network amplifies rounding, rewritten or not.
"""

from __future__ import annotations

import pytest

timm = pytest.importorskip("timm")
torch = pytest.importorskip("torch")

from phoneward.export.models.random_init import randomise  # noqa: E402
from phoneward.export.rewrites import apply_all  # noqa: E402
from phoneward.export.rewrites.mobilevit_shuffle import ShuffledGrid  # noqa: E402
from phoneward.export.rewrites.token_patches import PatchGrid  # noqa: E402

V1 = ("fuse_batch_norm", "mean_pool", "mobilevit_tokens")
V1_RMS = (*V1, "mobilevit_rms")
V1_SHUFFLE = ("fuse_batch_norm", "mean_pool", "mobilevit_shuffle")
V2 = ("fuse_batch_norm", "mean_pool", "mobilevitv2_tokens")
V2_SHUFFLE = ("fuse_batch_norm", "mean_pool", "mobilevitv2_shuffle")
PLANS = [
    *(
        (f"mobilevit_{size}", plan)
        for size in ("xxs", "xs", "s")
        for plan in (V1, V1_RMS, V1_SHUFFLE)
    ),
    *(
        (f"mobilevitv2_{width}", plan)
        for width in ("050", "075", "100", "125", "150", "175", "200")
        for plan in (V2, V2_SHUFFLE)
    ),
]
SMALLEST = [
    pytest.param("mobilevit_xxs", V1_RMS, id="v1"),
    pytest.param("mobilevit_xxs", V1_SHUFFLE, id="v1-shuffle"),
    pytest.param("mobilevitv2_050", V2, id="v2"),
    pytest.param("mobilevitv2_050", V2_SHUFFLE, id="v2-shuffle"),
]


def _model(name: str, pixels: int) -> torch.nn.Module:
    model = timm.create_model(name, pretrained=False).eval()
    randomise(model, (1, 3, pixels, pixels), seed=3)
    return model.requires_grad_(False).double()


def _image(batch: int, pixels: int) -> torch.Tensor:
    return torch.randn(
        batch, 3, pixels, pixels, generator=torch.Generator().manual_seed(7)
    ).double()


def _assert_unchanged(model: torch.nn.Module, plan: tuple[str, ...], image: torch.Tensor) -> None:
    before = model(image)
    changed = apply_all(model, plan)
    after = model(image)
    assert all(count > 0 for count in changed.values()), changed
    spread = before.max() - before.min()
    assert (after - before).abs().max() <= 1e-10 * spread


@pytest.mark.parametrize(
    ("name", "plan"), PLANS, ids=lambda value: value if isinstance(value, str) else value[-1]
)
def test_outputs_are_unchanged(name: str, plan: tuple[str, ...]) -> None:
    _assert_unchanged(_model(name, 64), plan, _image(1, 64))


@pytest.mark.parametrize(("name", "plan"), SMALLEST)
@pytest.mark.parametrize("pixels", [256, 96], ids=["even", "resized"])
def test_batches_and_maps_that_need_a_resize(name: str, plan: tuple[str, ...], pixels: int) -> None:
    _assert_unchanged(_model(name, pixels), plan, _image(2, pixels))


@pytest.mark.parametrize(("name", "plan"), SMALLEST)
def test_a_second_pass_finds_nothing(name: str, plan: tuple[str, ...]) -> None:
    model = _model(name, 64)
    apply_all(model, plan)
    assert set(apply_all(model, plan).values()) == {0}


@pytest.mark.parametrize("kind", [PatchGrid, ShuffledGrid])
def test_tokens_are_grouped_by_offset_in_the_patch(kind: type[PatchGrid]) -> None:
    grid = kind(height=4, width=6, patch_height=2, patch_width=2)
    maps = torch.arange(2 * 3 * 24.0).reshape(2, 3, 4, 6)
    tokens = grid.unfold(maps)
    assert tokens.shape == (2, 4, 6, 3)
    assert torch.equal(tokens[1, 1].T.reshape(3, 2, 3), maps[1, :, 0::2, 1::2])
    assert torch.equal(tokens[0, 2].T.reshape(3, 2, 3), maps[0, :, 1::2, 0::2])
    assert torch.equal(grid.fold(tokens), maps)


@pytest.mark.parametrize(("name", "plan"), SMALLEST)
def test_no_tensor_is_above_rank_four(name: str, plan: tuple[str, ...]) -> None:
    model = _model(name, 64)
    apply_all(model, plan)
    graph = torch.export.export(model, (_image(1, 64),)).graph
    values = [n.meta["val"] for n in graph.nodes if n.op == "call_function"]
    ranks = [value.ndim for value in values if isinstance(value, torch.Tensor)]
    assert max(ranks) == 4

"""The EfficientFormer rewrites leave the logits unchanged and the graphs free of what engines lack.

The algebra is proved in double precision, where 1e-10 leaves a wrong constant no room.
"""

from __future__ import annotations

import pathlib

import pytest

timm = pytest.importorskip("timm")
torch = pytest.importorskip("torch")

from phoneward.export.models.random_init import randomise  # noqa: E402
from phoneward.export.rewrites import apply_all  # noqa: E402

V1 = ("fold_layer_scale", "merge_heads", "pool_mixer", "biased_attention", "fuse_conv_norm")
V1_RMS = (*V1, "efficientformer_rms")
_V2 = ("fold_layer_scale", "merge_heads", "fuse_conv_norm", "fuse_batch_norm")
V2 = (*_V2, "attention_maps")
V2_CONV = (*_V2, "attention_maps_conv")
PLANS = [
    ("efficientformer_l1", V1),
    ("efficientformer_l1", V1_RMS),
    ("efficientformerv2_s0", V2),
    ("efficientformerv2_s0", V2_CONV),
]
LARGER = [
    *((f"efficientformer_{size}", plan) for size in ("l3", "l7") for plan in (V1, V1_RMS)),
    *((f"efficientformerv2_{size}", plan) for size in ("s1", "s2", "l") for plan in (V2, V2_CONV)),
]
SMALLEST = [
    pytest.param("efficientformer_l1", V1, id="v1"),
    pytest.param("efficientformer_l1", V1_RMS, id="v1-rms"),
    pytest.param("efficientformerv2_s0", V2, id="v2"),
    pytest.param("efficientformerv2_s0", V2_CONV, id="v2-conv"),
]
# what may run as one XNNPACK delegate with nothing outside
DELEGATED = [
    pytest.param("efficientformer_l1", V1_RMS, id="v1"),
    pytest.param("efficientformerv2_s0", V2, id="v2"),
]


def _model(name: str) -> torch.nn.Module:
    model = timm.create_model(name, pretrained=False).eval()
    randomise(model, (1, 3, 224, 224), seed=3)
    return model.requires_grad_(False)


def _image() -> torch.Tensor:
    return torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize(
    ("name", "plan"),
    [*PLANS, *(pytest.param(*case, marks=pytest.mark.matrix) for case in LARGER)],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_outputs_are_unchanged(name: str, plan: tuple[str, ...]) -> None:
    model, image = _model(name).double(), _image().double()
    before = model(image)
    changed = apply_all(model, plan)
    after = model(image)
    assert all(count > 0 for count in changed.values()), changed
    assert (after - before).abs().max() <= 1e-10 * (before.max() - before.min())


@pytest.mark.parametrize(("name", "plan"), SMALLEST)
def test_a_second_pass_finds_nothing(name: str, plan: tuple[str, ...]) -> None:
    model = _model(name)
    apply_all(model, plan)
    assert not any(apply_all(model, plan).values())


@pytest.mark.parametrize(("name", "plan"), SMALLEST)
def test_a_wrapped_model_is_rewritten_too(name: str, plan: tuple[str, ...]) -> None:
    inner = _model(name)
    wrapped = torch.nn.Sequential(inner)
    before = wrapped(_image())
    assert all(apply_all(wrapped, plan).values())
    assert (wrapped(_image()) - before).abs().max() <= 1e-5 * (before.max() - before.min())


@pytest.mark.parametrize(("name", "plan"), SMALLEST)
def test_the_exported_graph_is_plain(name: str, plan: tuple[str, ...]) -> None:
    model, image = _model(name), _image()
    apply_all(model, plan)
    program = torch.export.export(model, (image,)).run_decompositions()
    nodes = [n for n in program.graph.nodes if n.op == "call_function"]
    targets = {str(n.target) for n in nodes}
    unwanted = ("batch_norm", "index", "split", "gather")
    assert not [t for t in targets if any(word in t for word in unwanted)]
    tensors = [n.meta["val"] for n in nodes if isinstance(n.meta["val"], torch.Tensor)]
    assert all(t.dtype == torch.float32 and t.dim() <= 4 for t in tensors)


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore:read_binary is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("name", "plan"), DELEGATED)
def test_executorch_runs_it_whole_in_xnnpack(
    name: str, plan: tuple[str, ...], tmp_path: pathlib.Path
) -> None:
    pytest.importorskip("executorch")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    model, image = _model(name), _image()
    before = model(image)
    apply_all(model, plan)
    program = torch.export.export(model, (image,))
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    nodes = edge.exported_program().graph_module.graph.nodes
    called = [n.name for n in nodes if n.op == "call_function"]
    assert [name.rstrip("_0123456789") for name in called] == [
        "executorch_call_delegate",
        "getitem",
    ]
    path = tmp_path / "model.pte"
    path.write_bytes(edge.to_executorch().buffer)
    (after,) = Runtime.get().load_program(path).load_method("forward").execute((image,))
    assert (after - before).abs().max() <= 1e-5 * (before.max() - before.min())

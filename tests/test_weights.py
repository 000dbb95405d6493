"""Weights are found by name and loaded strictly, and a file never runs code."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from phoneward.errors import HubUnavailable, WeightsError
from phoneward.export.models import find
from phoneward.export.models.efficienttam.model import EfficientTAM
from phoneward.export.models.efficienttam.variants import VARIANTS
from phoneward.export.weights import load, load_strictly, resolve

LITE0, _ = find("efficientnet_lite0")
MOBILE, _ = find("mobilenetv3_small_100")


def from_file(path: Path) -> dict[str, torch.Tensor]:
    state = load(resolve(str(path), MOBILE))
    assert state is not None
    return state


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


@pytest.mark.parametrize("wrap", [None, "model", "state_dict"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_state_dict_round_trips(tmp_path: Path, suffix: str, wrap: str | None) -> None:
    state = model().state_dict()
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({wrap: state} if wrap else state, path)
    loaded = from_file(path)
    other = model()
    load_strictly(other, loaded, "toy")
    assert all(torch.equal(state[key], value) for key, value in other.state_dict().items())
    record = resolve(str(path), MOBILE).record
    assert (record.kind, record.source) == ("file", path.name)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 40, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(model().state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if keep < 1 and keep else int(keep)])
    with pytest.raises(WeightsError, match="weights file|safetensors file|refused"):
        from_file(path)


class _Boom:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('code from a weights file ran')",))


@pytest.mark.parametrize("save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, save) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "w.pt"
    save({"0.weight": _Boom()}, path)
    with pytest.raises(WeightsError, match="holds code"):
        from_file(path)


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, 7])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="no state dict|not tensors"):
        from_file(tmp_path / "w.pt")


def test_keys_that_do_not_fit_are_listed() -> None:
    state = dict(model().state_dict())
    state["2.weight"] = state.pop("1.bias")
    state["0.weight"] = torch.zeros(5, 5)
    with pytest.raises(WeightsError) as caught:
        load_strictly(model(), state, "toy")
    assert str(caught.value) == (
        "weights do not fit toy: missing 1: 1.bias; unexpected 1: 2.weight; "
        "misshapen 1: 0.weight (5, 5) instead of (3, 2)"
    )


def test_a_hub_out_of_reach_names_the_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nonexistent")
    with pytest.raises(HubUnavailable, match="--weights FILE, or --weights random"):
        resolve("pretrained", MOBILE)


def test_a_path_that_is_no_file_is_an_error() -> None:
    with pytest.raises(WeightsError, match="no such file"):
        resolve("ranodm", MOBILE)


def test_lite0_comes_from_its_package_and_knows_an_espresso() -> None:
    from phoneward.export.photographs import photographs
    from phoneward.runtime.images import load_image, prepare

    weights = resolve("pretrained", LITE0)
    assert weights.record.kind == "package"
    card, family = find("efficientnet_lite0")
    module = family.build(card, load(weights))["classify"]
    photo = next(path for path in photographs() if path.stem == "espresso")
    image = prepare(load_image(photo), card.image, card.stages[0].inputs[0])
    with torch.no_grad():
        scores = module(torch.from_numpy(image)).softmax(-1)[0]
    labels = family.labels(card)
    assert labels is not None
    assert labels[int(scores.argmax())] == "espresso"
    assert scores.max() > 0.8


def test_an_official_efficienttam_checkpoint_loads_strictly(tmp_path: Path) -> None:
    """Its file is a state dict under `model`; other sizes have other shapes."""
    card, family = find("efficienttam_ti_512x512")
    state = EfficientTAM(VARIANTS[card.name]).state_dict()
    assert len(state) == 455
    torch.save({"model": state}, tmp_path / "w.pt")
    loaded = load(resolve(str(tmp_path / "w.pt"), card))
    assert loaded is not None
    assert set(family.build(card, loaded)) == {stage.name for stage in card.stages}
    with pytest.raises(WeightsError, match=r"do not fit efficienttam_s: misshapen .*384"):
        family.build(find("efficienttam_s")[0], loaded)
    del loaded["no_obj_ptr"]
    with pytest.raises(WeightsError, match="missing 1: no_obj_ptr"):
        family.build(card, loaded)

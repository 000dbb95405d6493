"""The baselines on motion that is known, and where their package is absent."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from phoneward.errors import MissingExtra, PromptError, UnknownName
from phoneward.runtime.evaluation import region_similarity
from phoneward.runtime.evaluation.baselines import BASELINES
from phoneward.runtime.evaluation.baselines.base import Baseline
from phoneward.runtime.evaluation.baselines.template import shifted
from phoneward.runtime.prompts import Prompt

HEIGHT, WIDTH = 120, 200


def texture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Noise of several scales."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for scale in (4, 8, 16):
        noise = rng.integers(0, 256, (height // scale + 1, width // scale + 1, 3), np.uint8)
        large = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(large, np.float64) / 3
    return total.round().astype(np.uint8)


def moving(
    down: int, along: int, count: int = 6
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """A disk with a texture of its own, which goes before a still background."""
    background, skin = texture(1, HEIGHT, WIDTH), texture(2, 60, 60)
    rows, columns = np.indices((60, 60))
    disk = (rows - 29.5) ** 2 + (columns - 29.5) ** 2 < 25**2
    for index in range(count):
        top, left = 20 + down * index, 40 + along * index
        frame, mask = background.copy(), np.zeros((HEIGHT, WIDTH), np.bool_)
        frame[top : top + 60, left : left + 60][disk] = skin[disk]
        mask[top : top + 60, left : left + 60] = disk
        yield frame, mask


def follow(baseline: Baseline, down: int, along: int) -> list[float]:
    """J of every frame after the first."""
    similarities = []
    for index, (frame, mask) in enumerate(moving(down, along)):
        if index == 0:
            found = baseline.prompt(0, frame, Prompt(4, mask=mask))
        else:
            found = baseline.track(index, frame)
            similarities.append(region_similarity(found.masks[0], mask))
        assert (found.object_ids, found.masks.shape) == ((4,), (1, HEIGHT, WIDTH))
    return similarities


def test_a_copy_stays() -> None:
    similarities = follow(BASELINES.get("copy")(), 0, 10)
    assert similarities[0] > similarities[1] > similarities[2] > 0
    assert follow(BASELINES.get("copy")(), 0, 0) == [1.0] * 5


@pytest.mark.parametrize(("name", "least"), [("flow", 0.75), ("template", 0.99)])
@pytest.mark.parametrize(("down", "along"), [(0, 4), (2, -3), (-3, 1)])
def test_flow_and_template_go_along(name: str, least: float, down: int, along: int) -> None:
    similarities = follow(BASELINES.get(name)(), down, along)
    assert min(similarities) > least
    assert similarities[-1] > follow(BASELINES.get("copy")(), down, along)[-1] + 0.2


@pytest.mark.parametrize("name", ["flow", "template"])
def test_frames_without_structure_move_nothing(name: str) -> None:
    baseline, mask = BASELINES.get(name)(), np.zeros((300, 400), np.bool_)
    mask[100:200, 150:250] = True
    frame = np.full((300, 400, 3), 90, np.uint8)
    baseline.prompt(0, frame, Prompt(1, mask=mask))
    for index in (1, 2):
        found = baseline.track(index, frame)
        assert region_similarity(found.masks[0], mask) > 0.97


@pytest.mark.parametrize("name", BASELINES)
def test_objects_come_later_and_may_be_empty_or_fill_the_frame(name: str) -> None:
    baseline = BASELINES.get(name)()
    frames = list(moving(0, 4))
    empty, full = np.zeros((HEIGHT, WIDTH), np.bool_), np.ones((HEIGHT, WIDTH), np.bool_)
    baseline.prompt(0, frames[0][0], Prompt(1, mask=empty))
    baseline.track(1, frames[1][0])
    baseline.prompt(1, frames[1][0], Prompt(2, mask=full))
    baseline.prompt(1, frames[1][0], Prompt(3, mask=frames[1][1]))
    found = baseline.track(2, frames[2][0])
    assert found.object_ids == (1, 2, 3)
    assert not found.masks[0].any()
    assert found.masks[1].mean() > 0.97
    copied = region_similarity(frames[1][1], frames[2][1])
    assert region_similarity(found.masks[2], frames[2][1]) >= copied
    baseline.reset()
    assert baseline.object_ids == ()


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_knows_only_masks(name: str) -> None:
    with pytest.raises(PromptError, match="object 1: a baseline takes a mask"):
        BASELINES.get(name)().prompt(
            0, np.zeros((9, 9, 3), np.uint8), Prompt(1, points=((1, 1),), labels=(1,))
        )


@pytest.mark.parametrize("name", ["flow", "template"])
def test_without_scikit_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [each for each in sys.modules if each.partition(".")[0] == "skimage"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(MissingExtra, match=r"pip install 'phoneward\[evaluate\]'"):
        BASELINES.get(name)()
    BASELINES.get("copy")()


def test_an_unknown_baseline() -> None:
    with pytest.raises(UnknownName, match="unknown baseline 'sam'; known: copy, flow, template"):
        BASELINES.get("sam")


@pytest.mark.parametrize(
    ("down", "along", "where"), [(1, 0, (2, 1)), (0, -1, (1, 0)), (3, 0, None), (-9, 9, None)]
)
def test_a_mask_moves_out_of_the_frame(
    down: int, along: int, where: tuple[int, int] | None
) -> None:
    mask = np.zeros((3, 4), np.bool_)
    mask[1, 1] = True
    found = [tuple(place) for place in np.argwhere(shifted(mask, down, along)).tolist()]
    assert found == ([] if where is None else [where])

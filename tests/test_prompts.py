"""Prompts: what they refuse, where they must lie, and how they are given as options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phoneward.apps.cli.prompts import load_mask, parse_prompts
from phoneward.errors import ImageError, PromptError
from phoneward.runtime.prompts import MOST_POINTS, Prompt

NAN = float("nan")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "neither points nor a box nor a mask"),
        ({"object_id": -1, "points": ((1, 1),), "labels": (1,)}, "negative"),
        ({"points": ((1, 1),), "labels": ()}, "1 points have 0 labels"),
        ({"points": ((1, 1),), "labels": (2,)}, "not all 0 or 1"),
        ({"points": ((1, NAN),), "labels": (1,)}, "not finite"),
        ({"points": ((1, 1),) * 17, "labels": (1,) * 17}, "17 points"),
        ({"points": ((1, 1),) * 15, "labels": (1,) * 15, "box": (0, 0, 1, 1)}, "17 points"),
        ({"box": (5, 0, 5, 1)}, "x0<x1"),
        ({"box": (0, 3, 5, 1)}, "y0<y1"),
        ({"box": (0, NAN, 5, 1)}, "x0<x1"),
        ({"mask": np.ones((2, 2), np.uint8)}, "two-dimensional array of bool"),
        ({"mask": np.ones((2, 2, 1), np.bool_)}, "two-dimensional array of bool"),
        ({"mask": np.ones((2, 2), np.bool_), "box": (0, 0, 1, 1)}, "beside"),
    ],
)
def test_what_a_prompt_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        Prompt(**{"object_id": 1, **fields})


def test_as_many_points_as_there_are_slots() -> None:
    count = MOST_POINTS - 2
    Prompt(1, ((1, 1),) * count, (1,) * count, (0, 0, 1, 1)).check_inside(2, 2)


@pytest.mark.parametrize(
    ("prompt", "inside", "message"),
    [
        (Prompt(1, ((0, 0), (19.9, 9.9)), (1, 0)), True, ""),
        (Prompt(1, ((20, 5),), (1,)), False, "point 20,5 is outside the frame of 20x10"),
        (Prompt(1, ((5, 10),), (1,)), False, "point 5,10 is outside the frame of 20x10"),
        (Prompt(1, ((-0.1, 5),), (1,)), False, "point -0.1,5 is outside"),
        (Prompt(1, box=(0, 0, 20, 10)), True, ""),
        (Prompt(1, box=(0, 0, 20.5, 10)), False, "box 0,0,20.5,10 is outside"),
        (Prompt(1, mask=np.ones((10, 20), np.bool_)), True, ""),
        (Prompt(1, mask=np.ones((20, 10), np.bool_)), False, "mask of 10x20 is not of the size"),
    ],
)
def test_inside_a_frame_of_20x10(prompt: Prompt, inside: bool, message: str) -> None:
    if inside:
        prompt.check_inside(10, 20)
        return
    with pytest.raises(PromptError, match=message):
        prompt.check_inside(10, 20)


def test_options_of_one_object_and_frame_are_one_prompt() -> None:
    parsed = parse_prompts(
        ["2@30:7,8", "0:1.5,2", "0:3,4,0", "1@0:5,6,1"], ["0:0,0,9,9", "3@5:1,2,3,4"], []
    )
    assert [(each.frame, each.prompt.object_id) for each in parsed] == [(0, 1), (5, 3), (30, 2)]
    first, second, third = (each.prompt for each in parsed)
    assert first.points == ((1.5, 2.0), (3.0, 4.0), (5.0, 6.0))
    assert first.labels == (1, 0, 1)
    assert first.box == (0, 0, 9, 9)
    assert (second.points, second.box) == ((), (1, 2, 3, 4))
    assert (third.points, third.labels, third.box) == (((7, 8),), (1,), None)


@pytest.mark.parametrize(
    ("points", "boxes", "message"),
    [
        ([], [], "give at least one --point, --box or --mask"),
        (["1,2"], [], r"--point 1,2 is not \[OBJECT@\]FRAME:X,Y"),
        (["0:1"], [], "is not"),
        (["0:1,2,2"], [], "is not"),
        (["0:1,2,1,1"], [], "is not"),
        (["0:a,b"], [], "is not"),
        (["-1:1,2"], [], "is not"),
        (["x@0:1,2"], [], "is not"),
        (["0:nan,2"], [], "not finite"),
        ([], ["0:1,2,3"], r"--box 0:1,2,3 is not \[OBJECT@\]FRAME:X0,Y0,X1,Y1"),
        ([], ["0:9,9,1,1"], "x0<x1"),
        ([], ["0:1,2,3,4", "1@0:1,2,3,5"], "second box"),
    ],
)
def test_options_that_say_nothing(points: list[str], boxes: list[str], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        parse_prompts(points, boxes, [])


@pytest.mark.parametrize("value", [1, 127, 255])
@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_masks_of_files(tmp_path: Path, value: int, mode: str) -> None:
    mask = np.zeros((6, 9), np.bool_)
    mask[2:4, 3:8] = True
    image = Image.fromarray(mask) if mode == "1" else Image.fromarray(mask * np.uint8(value))
    image.convert(mode).save(tmp_path / "a:b.png")
    (parsed,) = parse_prompts([], [], [f"4@2:{tmp_path / 'a:b.png'}"])
    assert (parsed.frame, parsed.prompt.object_id) == (2, 4)
    assert parsed.prompt.mask is not None
    assert np.array_equal(parsed.prompt.mask, mask)


def test_a_masks_object_is_bright_and_opaque(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0] = [(255, 255, 255, 255), (255, 255, 255, 0), (0, 0, 0, 255)]
    pixels[1] = [(200, 200, 200, 200), (255, 255, 255, 100), (0, 0, 0, 0)]
    for image in (Image.fromarray(pixels), Image.fromarray(pixels).convert("LA")):
        image.save(path)
        assert load_mask(path).tolist() == [[True, False, False], [True, False, False]]
    Image.fromarray(np.array([[7, 255]], np.uint8)).save(path, transparency=255)
    assert load_mask(path).tolist() == [[True, False]]
    pixels[..., 3] = 0
    Image.fromarray(pixels).save(path)
    with pytest.raises(PromptError, match="black or transparent"):
        load_mask(path)


def test_a_palette_masks_object_is_all_but_index_0(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    image = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8))
    for background, transparent in (((0, 0, 0), None), ((255, 255, 255), 0)):
        image.putpalette([*background, 128, 0, 0, 40, 0, 0, 0, 0, 0])
        image.save(path, **({} if transparent is None else {"transparency": transparent}))
        with Image.open(path) as saved:
            assert saved.mode == "P"
        assert load_mask(path).tolist() == [[False, True, True, True]]
    image.save(path)  # white, opaque, at index 0: the object as it shows, the background by index
    with pytest.raises(ImageError, match=r"mask.png: .*index 0 of the palette"):
        load_mask(path)


def test_masks_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "black.png"
    Image.new("L", (3, 3)).save(path)
    with pytest.raises(PromptError, match="the mask is empty"):
        load_mask(path)
    with pytest.raises(ImageError):
        parse_prompts([], [], [f"0:{tmp_path / 'absent.png'}"])
    Image.new("L", (3, 3), 255).save(path)
    with pytest.raises(PromptError, match="second mask"):
        parse_prompts([], [], [f"0:{path}", f"0:{path}"])
    with pytest.raises(PromptError, match="beside"):
        parse_prompts(["0:1,1"], [], [f"0:{path}"])

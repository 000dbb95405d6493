"""Prompts as options: `--point 2@30:412,233,0`, `--box 0:10,20,200,180`, `--mask 0:cat.png`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phoneward.errors import PromptError
from phoneward.runtime.follow import PromptAt
from phoneward.runtime.images import load_levels
from phoneward.runtime.prompts import Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLACE = re.compile(r"(?:(\d{1,9})@)?(\d{1,9}):(.+)", re.DOTALL)
_FORMS = {
    "--point": "[OBJECT@]FRAME:X,Y[,0 or 1]",
    "--box": "[OBJECT@]FRAME:X0,Y0,X1,Y1",
    "--mask": "[OBJECT@]FRAME:FILE",
}


@dataclass
class _Parts:
    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    box: tuple[float, float, float, float] | None = None
    mask: NDArray[np.bool_] | None = None


def parse_prompts(
    points: Sequence[str], boxes: Sequence[str], masks: Sequence[str]
) -> tuple[PromptAt, ...]:
    """Parse the options; what is said of one object on one frame makes one prompt.

    Raises:
        PromptError: an option of another form, none at all, two boxes or masks for one object on
            one frame, or a mask that is empty.
        ImageError: a mask file cannot be read.
    """
    parts: dict[tuple[int, int], _Parts] = {}
    for text in points:
        place, values = _numbers("--point", text, (2, 3))
        one = parts.setdefault(place, _Parts())
        label = values[2] if len(values) == 3 else 1
        if label not in (0, 1):
            raise _wrong("--point", text)
        one.points.append((values[0], values[1]))
        one.labels.append(int(label))
    for text in boxes:
        place, values = _numbers("--box", text, (4,))
        one = parts.setdefault(place, _Parts())
        if one.box is not None:
            raise PromptError(f"--box {text} is the second box for its object and frame")
        one.box = (values[0], values[1], values[2], values[3])
    for text in masks:
        place, rest = _split("--mask", text)
        one = parts.setdefault(place, _Parts())
        if one.mask is not None:
            raise PromptError(f"--mask {text} is the second mask for its object and frame")
        one.mask = load_mask(Path(rest))
    if not parts:
        raise PromptError("say what to track: give at least one --point, --box or --mask")
    return tuple(
        PromptAt(frame, Prompt(number, tuple(p.points), tuple(p.labels), p.box, p.mask))
        for (frame, number), p in sorted(parts.items(), key=lambda item: item[0])
    )


def load_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask image as bool (H, W): True above half of its brightest level (`load_levels`).

    So 0 and 255, 0 and 1, colors on black and JPEG's blurred edges all mean what they show, what
    is transparent is background, and of a palette image all but index 0 is the object.

    Raises:
        ImageError: it is no readable image, or a palette image with a bright background.
        PromptError: nothing in it is bright and opaque.
    """
    brightness = load_levels(path)
    if not brightness.any():
        raise PromptError(f"{path}: the mask is empty, all of it is black or transparent")
    return np.asarray(brightness > brightness.max() / 2, np.bool_)


def _split(option: str, text: str) -> tuple[tuple[int, int], str]:
    match = _PLACE.fullmatch(text)
    if match is None:
        raise _wrong(option, text)
    return (int(match[2]), int(match[1] or 1)), match[3]


def _numbers(
    option: str, text: str, counts: tuple[int, ...]
) -> tuple[tuple[int, int], list[float]]:
    place, rest = _split(option, text)
    try:
        values = [float(part) for part in rest.split(",")]
    except ValueError as error:
        raise _wrong(option, text) from error
    if len(values) not in counts:
        raise _wrong(option, text)
    return place, values


def _wrong(option: str, text: str) -> PromptError:
    return PromptError(f"{option} {text} is not {_FORMS[option]}, in pixels of the video")

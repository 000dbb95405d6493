"""A contact sheet: the three worst sequences, the quartiles and the best one, over time."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from phoneward.runtime.evaluation.metrics import contour
from phoneward.runtime.evaluation.protocol import TRACKER, Step
from phoneward.runtime.evaluation.sequence import objects_in
from phoneward.runtime.overlay import draw

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.runtime.evaluation.result import SequenceResult, TrackerResult

_ROWS, _COLUMNS, _TILE, _LINE, _GAP = 7, 6, 240, 14, 4
_TRUE = np.array([255, 255, 255], np.uint8)


class Sheet:
    """Sees every step of the tracker, and keeps a few annotated frames a sequence, compressed."""

    def __init__(self) -> None:
        self._tiles: dict[str, list[tuple[int, bytes]]] = {}

    def see(self, step: Step) -> None:
        """Take a step; what is not the tracker's, or not to be shown, is passed over."""
        if step.who != TRACKER or step.annotation is None:
            return
        annotated = sorted(step.sequence.annotations)
        places = np.linspace(0, len(annotated) - 1, min(_COLUMNS, len(annotated))).round()
        if step.frame.index in {annotated[int(place)] for place in places}:
            kept = self._tiles.setdefault(step.sequence.name, [])
            kept.append((step.frame.index, _tile(step, step.annotation)))

    def save(self, path: Path, result: TrackerResult) -> None:
        """Write the sheet as PNG; raises OSError."""
        rows = [(_title(rank, one), self._tiles[one.name]) for rank, one in chosen(result)]
        heights = [max(_opened(data).height for _, data in tiles) for _, tiles in rows]
        row_heights = [2 * _LINE + height + _GAP for height in heights]
        width = _COLUMNS * (_TILE + _GAP) + _GAP
        sheet = Image.new("RGB", (width, sum(row_heights) + _GAP), "black")
        pen, top = ImageDraw.Draw(sheet), _GAP
        for (title, tiles), height in zip(rows, row_heights, strict=True):
            pen.text((_GAP, top), title, fill="white")
            for column, (index, data) in enumerate(tiles):
                left = _GAP + column * (_TILE + _GAP)
                pen.text((left, top + _LINE), f"frame {index}", fill="grey")
                sheet.paste(_opened(data), (left, top + 2 * _LINE))
            top += height
        sheet.save(path)


def chosen(result: TrackerResult) -> Iterable[tuple[str, SequenceResult]]:
    """Return the worst three, the quartiles and the best sequence by J&F; of up to seven all."""
    ranked = sorted(result.sequences, key=lambda each: (each.jf, each.name))
    if len(ranked) <= _ROWS:
        return [("", each) for each in ranked]
    last = len(ranked) - 1
    places = {
        0: "worst",
        1: "second worst",
        2: "third worst",
        last // 4: "first quartile",
        last // 2: "median",
        3 * last // 4: "third quartile",
        last: "best",
    }
    return [(rank, ranked[place]) for place, rank in sorted(places.items())]


def _title(rank: str, result: SequenceResult) -> str:
    figures = f"J&F {result.jf:.3f}  J {result.j.mean:.3f}  F {result.f.mean:.3f}"
    return f"{rank + ': ' if rank else ''}{result.name}  {figures}  (white: the annotation)"


def _tile(step: Step, annotation: NDArray[np.uint8]) -> bytes:
    """Draw the predicted masks and, in white, the annotated contours, and shrink the frame."""
    scale = _TILE / step.frame.pixels.shape[1]
    size = _TILE, max(1, round(step.frame.pixels.shape[0] * scale))
    pixels = np.asarray(Image.fromarray(step.frame.pixels).resize(size, Image.Resampling.BOX))
    labels, wanted = _nearest(step.labels, size), _nearest(annotation, size)
    found = objects_in(labels)
    masks = [labels == each for each in found]
    drawn = draw(pixels, found, np.stack(masks)) if masks else pixels.copy()
    for each in objects_in(wanted):
        drawn[contour(wanted == each)] = _TRUE
    stream = io.BytesIO()
    Image.fromarray(drawn).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _nearest(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))

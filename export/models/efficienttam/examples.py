"""Reference inputs of the four stages: what the stages themselves make of two photographs.

The first photograph and the same one a little moved are two frames of one scene, so that an
object prompted on the first is in sight on the second; the second photograph only varies the
images. What one stage returns goes to the next rounded to six significant bits, which half
precision holds exactly, and which keeps bundles small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.export.models.efficienttam.family import variant_of
from phoneward.export.models.efficienttam.variants import POINT_SLOTS, POINTER_SLOTS
from phoneward.export.models.family import Examples
from phoneward.export.photographs import photographs
from phoneward.export.reference import run
from phoneward.runtime.images import load_image, prepare

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from phoneward.export.models.efficienttam.variants import Variant
    from phoneward.export.models.family import ModelCard

    Arrays = dict[str, NDArray[Any]]

_SIGNIFICANT = 2.0**6
_MOST_MEMORIES = 4
_MOVE = 1 / 32  # of the image's side, a step
_NUDGE, _STEADY = 2.0**-9, 0.03


def examples(card: ModelCard, modules: Mapping[str, nn.Module]) -> dict[str, Examples]:
    """Return two images; prompts of each kind; a bank with one memory and one with several.

    Where a stage chooses (the best of three masks, whether a mask is stable), inputs are taken
    for which a small change of the features leaves the choice as it is, if there are such.
    """
    chain = _Chain(variant_of(card), card, modules)
    images = [chain.image(index) for index in (0, 1)]
    frames = [chain.frame(image) for image in (*images, *chain.moved(images[0]))]
    one, two, box, mask = chain.prompts(frames[0], frames[1])
    first = chain.shown(one)
    shown = [(first, frames[0])]
    alone = chain.remember(frames[2], shown)
    answer = chain("propagate", alone)
    shown = [(first, frames[0]), (answer, frames[2]), *((answer, f) for f in frames[3:])]
    several = chain.remember(frames[-1], shown[:_MOST_MEMORIES])
    corrected = chain.correction(answer)
    memorized = [_memorize(frames[0], first, 1), _memorize(frames[2], answer, 0)]
    samples = {
        "encode": [{"image": image} for image in images],
        "prompt": [one, two, box, mask, corrected],
        "propagate": [alone, several],
        "memorize": memorized,
    }
    return {stage: _stacked(rows) for stage, rows in samples.items()}


@dataclass(frozen=True)
class _Chain:
    """The stages, run one after another."""

    variant: Variant
    card: ModelCard
    modules: Mapping[str, nn.Module]

    def __call__(self, stage: str, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        spec = next(spec for spec in self.card.stages if spec.name == stage)
        return dict(run(self.modules[stage], spec, inputs))

    def image(self, index: int) -> NDArray[np.uint8]:
        tensor = self.card.stages[0].inputs[0]
        image = prepare(load_image(photographs()[index]), self.card.image, tensor)
        return image.round().astype(np.uint8)

    def moved(self, image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """The image as it looks after one step and more of the camera."""
        step = round(_MOVE * self.variant.image)
        shifts = range(step, step * _MOST_MEMORIES, step)
        return [np.roll(image, (shift // 2, shift), axis=(2, 3)) for shift in shifts]

    def frame(self, image: NDArray[np.uint8]) -> NDArray[np.float16]:
        return _short(self("encode", {"image": image})["features"])

    def prompts(
        self, features: NDArray[np.float16], others: NDArray[np.float16]
    ) -> tuple[Arrays, Arrays, Arrays, Arrays]:
        """A point and two on the first features; a box and a mask on the others."""
        places = ((0.5, 0.5), (0.45, 0.4), (0.6, 0.55), (0.4, 0.6), (0.55, 0.3), (0.3, 0.4))
        one = [self.prompt(features, [place], [1]) for place in places]
        two = [self.prompt(features, [place, (0.05, 0.1)], [1, 0]) for place in places]
        boxes = [((x - 0.25, y - 0.2), (x + 0.25, y + 0.3)) for x, y in places]
        box = [self.prompt(others, corners, [2, 3]) for corners in boxes]
        mask = self.prompt(others, (), ())
        mask |= {"mask": self.disc(places[0]), "has_mask": _flag(1)}
        return self.steady(one), self.steady(two), self.steady(box), mask

    def prompt(
        self,
        features: NDArray[np.float16],
        places: Iterable[tuple[float, float]],
        labels: Iterable[int],
    ) -> Arrays:
        """A first prompt of points; places are shares of the image's sides."""
        side = self.variant.image
        points = np.zeros((1, POINT_SLOTS, 2), np.float32)
        kinds = np.full((1, POINT_SLOTS), -2, np.float32)
        kinds[0, 0] = -1
        for slot, (place, label) in enumerate(zip(places, labels, strict=True)):
            points[0, slot], kinds[0, slot] = np.round(np.multiply(place, side)), label
        return {
            "features": features,
            "points": points,
            "labels": kinds,
            "mask": np.zeros((1, 1, side, side), np.uint8),
            "previous": np.zeros((1, 1, side // 4, side // 4), np.float16),
            "initial": _flag(1),
            "has_mask": _flag(0),
            "has_previous": _flag(0),
        }

    def disc(self, centre: tuple[float, float]) -> NDArray[np.uint8]:
        side = self.variant.image
        rows, columns = np.mgrid[0:side, 0:side] / side
        inside: NDArray[np.bool_] = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 < 1 / 16
        return inside.astype(np.uint8)[None, None]

    def shown(self, prompt: Arrays) -> Arrays:
        return self("prompt", prompt)

    def remember(
        self, features: NDArray[np.float16], shown: list[tuple[Arrays, NDArray[np.float16]]]
    ) -> Arrays:
        """What `propagate` takes: the first answer is the prompted frame's, the last the newest."""
        slots, tokens = self.variant.slots, self.variant.tokens
        kept = [shown[0], *reversed(shown[1:])][:slots]
        memories = [self("memorize", _memorize(f, a, a is shown[0][0]))["memory"] for a, f in kept]
        memory = np.zeros((1, memories[0].shape[1], slots * tokens), np.float16)
        memory[:, :, : len(kept) * tokens] = _short(np.concatenate(memories, axis=2))
        age = np.full((1, slots), -1, np.float32)
        age[0, : len(kept)] = range(len(kept))
        inputs: Arrays = {"features": features, "memory": memory, "memory_age": age}
        if not self.variant.pointers:
            return inputs
        pointers = np.zeros((1, POINTER_SLOTS, self.variant.widths.channels), np.float16)
        pointers[0, : len(kept)] = _short(np.concatenate([a["pointer"] for a, _ in kept]))
        valid = (np.arange(POINTER_SLOTS) < len(kept)).astype(np.float32)[None]
        return inputs | {"pointers": pointers, "pointer_valid": valid}

    def correction(self, answer: Arrays) -> Arrays:
        """A point that corrects the answer of `propagate` on its own frame."""
        features, previous = _short(answer["conditioned"]), _short(answer["masks"])
        places = ((0.5, 0.5), (0.35, 0.6), (0.65, 0.45), (0.5, 0.7), (0.2, 0.3))
        changes: Arrays = {"previous": previous, "initial": _flag(0), "has_previous": _flag(1)}
        return self.steady([self.prompt(features, [place], [1]) | changes for place in places])

    def steady(self, candidates: list[Arrays]) -> Arrays:
        """The first prompt whose answer a nudge hardly changes, else the one it changes least."""
        changes: list[float] = []
        for prompt in candidates:
            changes.append(self._change(prompt))
            if changes[-1] < _STEADY:
                break
        return candidates[int(np.argmin(changes))]

    def _change(self, prompt: Arrays) -> float:
        """Largest change of an output over its range when the features are nudged."""
        features = prompt["features"].astype(np.float32)
        noise = np.random.default_rng(0).standard_normal(features.shape).astype(np.float32)
        before = self("prompt", prompt)
        after = self("prompt", prompt | {"features": features + _NUDGE * features.std() * noise})
        return max(
            float(np.abs(after[name] - values).max() / (np.ptp(values) or 1.0))
            for name, values in before.items()
        )


def _memorize(features: NDArray[np.float16], answer: Arrays, prompted: int) -> Arrays:
    return {"features": features, "masks": _short(answer["masks"]), "prompted": _flag(prompted)}


def _flag(value: int) -> NDArray[np.float32]:
    return np.full((1, 1), value, np.float32)


def _short(values: NDArray[Any]) -> NDArray[np.float16]:
    """Round to six significant bits, which half precision holds from 2^-14 upwards."""
    mantissa, exponent = np.frexp(values.astype(np.float32))
    return np.ldexp(np.round(mantissa * _SIGNIFICANT) / _SIGNIFICANT, exponent).astype(np.float16)


def _stacked(rows: list[Arrays]) -> Examples:
    inputs = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return Examples(inputs, np.ones(len(rows), np.bool_))

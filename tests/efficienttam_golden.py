"""Scenarios with the official predictor's answers, and a tracker held against them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoneward.runtime.memory_bank import widen
from phoneward.runtime.prompts import Prompt
from phoneward.runtime.tracked_frame import TrackedFrame
from phoneward.runtime.tracker import Tracker
from tests.efficienttam_recipe import clip, disc

GOLDEN = Path(__file__).parent / "data" / "efficienttam"
SCENARIOS = tuple(sorted(path.stem for path in GOLDEN.glob("*.json")))
# of logits, pointers, and object scores (also logits)
LOGITS, POINTERS, SCORES, SAME_SIGN = 2e-3, 2e-3, 1e-3, 0.999
MEMORY = 1e-3  # of mean and standard deviation


@dataclass(frozen=True)
class Answer:
    """One object on one frame."""

    logits: NDArray[np.float32]
    score: float
    pointer: NDArray[np.float32]
    memory: NDArray[np.float32]


@dataclass
class Figures:
    """Largest differences; `same_sign` is the smallest share of pixels on the same side of 0."""

    logits: float = 0.0
    same_sign: float = 1.0
    pointer: float = 0.0
    score: float = 0.0
    memory: float = 0.0
    seen: set[str] = field(default_factory=set, repr=False)

    def compare(self, what: str, golden: NDArray[np.float32], answer: Answer) -> None:
        """Hold one recorded array against an answer."""
        self.seen.add(what)
        if what == "mask_logits":
            self.logits = max(self.logits, gap(golden, answer.logits))
            same = ((golden > 0) == (answer.logits > 0)).mean()
            self.same_sign = min(self.same_sign, float(same))
        elif what == "mask_logits_mean_std":
            self.logits = max(self.logits, gap(golden, statistics(answer.logits)))
        elif what == "object_pointer":
            self.pointer = max(self.pointer, gap(golden, answer.pointer))
        elif what == "object_score":
            self.score = max(self.score, gap(golden, np.float32(answer.score)))
        elif what == "memory_mean_std":
            self.memory = max(self.memory, gap(golden, statistics(answer.memory)))


def gap(one: NDArray[Any], other: NDArray[Any] | np.float32) -> float:
    """The largest absolute difference."""
    return float(np.abs(one - other).max())


def statistics(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean and standard deviation, as the recording has them."""
    return np.array([values.mean(), values.std()], np.float32)


def prompt_of(action: dict[str, Any], size: int) -> Prompt:
    """What the recorded action says, as a prompt."""
    if action["kind"] == "mask":
        return Prompt(action["obj"], mask=disc(action["frame"], size))
    return Prompt(
        action["obj"],
        points=tuple((x, y) for x, y in action.get("points", ())),
        labels=tuple(action.get("labels", ())),
        box=tuple(action["box"]) if "box" in action else None,
    )


def order(action: dict[str, Any], frames: int, prompted: list[int]) -> list[int]:
    """The frames that the official predictor visits, one after another."""
    if action.get("reverse", False):
        return list(range(action.get("start_frame_idx", min(prompted)), -1, -1))
    return list(range(action.get("start_frame_idx", min(prompted)), frames))


def play(scenario: dict[str, Any], tracker: Tracker) -> dict[tuple[int, int], Answer]:
    """Do the actions; returns the last answer to each (object, frame)."""
    frames = clip(scenario["frames"], scenario["size"])
    answers: dict[tuple[int, int], Answer] = {}
    prompted = [each["frame"] for each in scenario["actions"] if "frame" in each]
    for action in scenario["actions"]:
        if action["kind"] == "propagate":
            reverse = action.get("reverse", False)
            for index in order(action, scenario["frames"], prompted):
                keep(answers, tracker, tracker.track(index, frames[index], reverse=reverse))
        else:
            index = action["frame"]
            prompt = prompt_of(action, scenario["size"])
            keep(answers, tracker, tracker.prompt(index, frames[index], prompt))
    return answers


def keep(answers: dict[tuple[int, int], Answer], tracker: Tracker, frame: TrackedFrame) -> None:
    """Note what a frame answered, with pointer and memory from the tracker's state."""
    state = tracker.state()
    for i, each in enumerate(frame.object_ids):
        (row,) = np.flatnonzero(state[f"object{each}/frames"] == frame.index)
        answers[each, frame.index] = Answer(
            logits=frame.logits[i],
            score=frame.scores[i],
            pointer=state[f"object{each}/pointer"][row],
            memory=widen(state[f"object{each}/memory"][row]),
        )


def worst(golden: Mapping[str, NDArray[Any]], answers: Mapping[tuple[int, int], Answer]) -> Figures:
    """The largest differences over all that is recorded."""
    figures = Figures()
    for key in golden:
        who, when, what = key.split("/")
        answer = answers[int(who.removeprefix("object")), int(when.removeprefix("frame"))]
        figures.compare(what, golden[key].astype(np.float32), answer)
    return figures


def scenario_of(name: str, folder: Path = GOLDEN) -> dict[str, Any]:
    """What the scenario `name` records: variant, object score bias, frames, size, actions."""
    scenario: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return scenario


def check(name: str, tracker: Tracker, folder: Path = GOLDEN) -> Figures:
    """Play a scenario and hold every recorded array against the answers."""
    scenario = scenario_of(name, folder)
    with np.load(folder / f"{name}.npz") as file:
        golden = {key: file[key] for key in file if key.split("/")[-1] != "memory"}
    figures = worst(golden, play(scenario, tracker))
    print(f"{name}: {figures}")  # noqa: T201 - shown by pytest -rP
    assert figures.seen >= {"mask_logits", "object_pointer", "object_score", "memory_mean_std"}
    assert figures.logits <= LOGITS
    assert figures.same_sign >= SAME_SIGN
    assert figures.pointer <= POINTERS
    assert figures.score <= SCORES
    assert figures.memory <= MEMORY
    return figures

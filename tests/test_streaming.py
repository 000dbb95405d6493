"""Long streams: a tracker holds no more after thousands of frames than after the first few."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from phoneward.apps.bench.child import ChildError, run_child
from phoneward.apps.bench.records import Machine
from phoneward.apps.bench.stream_worker import Look, StreamJob, StreamRun
from phoneward.apps.bench.streaming import StreamResults, growth, is_flat, main, render, slope
from phoneward.bundle import Bundle, Stage
from phoneward.export.models.efficienttam.specs import stages
from phoneward.export.models.efficienttam.variants import Variant
from phoneward.export.photographs import photographs
from phoneward.runtime.prompts import Prompt
from phoneward.runtime.tracker import Tracker
from phoneward.spec import TensorSpec

TINY = Variant("tiny", embedding=24, heads=2, image=32)


@dataclass(frozen=True)
class Constant:
    """A stage that answers new arrays of the right shapes at once."""

    stage: Stage

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.stage.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.stage.outputs

    def __call__(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {spec.name: np.ones(spec.shape, np.float32) for spec in self.outputs}


def held_by(owner: object) -> tuple[int, int]:
    """Number and bytes of all arrays that can be reached from an object."""
    seen: dict[int, NDArray[Any]] = {}
    pending, known = [owner], set()
    while pending:
        one = pending.pop()
        if id(one) in known:
            continue
        known.add(id(one))
        if isinstance(one, np.ndarray):
            seen[id(one)] = one
            pending.append(one.base)
            continue
        module = getattr(type(one), "__module__", "")
        if isinstance(one, (dict, list, tuple, set)) or module.startswith("phoneward.runtime"):
            pending.extend(gc.get_referents(one))
    return len(seen), sum(array.nbytes for array in seen.values())


def test_a_tracker_holds_as_much_after_2000_frames_as_after_100() -> None:
    tracker = Tracker({stage.name: Constant(stage) for stage in stages(TINY)})
    for name in (1, 2):
        tracker.prompt(0, frame(0), Prompt(name, points=((20.0, 10.0),), labels=(1,)))
    held = {}
    for index in range(1, 2001):
        tracker.track(index, frame(index))
        if index % 500 == 250:  # a correction now and then: it makes no conditioning frame
            tracker.prompt(index, frame(index), Prompt(1, points=((9.0, 9.0),), labels=(0,)))
        held[index] = held_by(tracker)
    # memory, pointer and logits of 16 frames, and the conditioning frame's, of two objects
    assert held[100][0] >= 2 * 3 * 17
    assert held[2000] == held[1000] == held[100]
    points = 2  # a correction's, and what they are a view of
    assert max(count for count, _ in held.values()) == held[100][0] + points


def test_what_is_counted_is_what_there_is() -> None:
    """Else the test above could not fail."""
    tracker = Tracker({stage.name: Constant(stage) for stage in stages(TINY)})
    tracker.prompt(0, frame(0), Prompt(1, points=((20.0, 10.0),), labels=(1,)))
    sizes = []
    for index in range(1, 15):
        tracker.track(index, frame(index))
        sizes.append(held_by(tracker))
    counts, totals = zip(*sizes, strict=True)
    assert [b - a for a, b in pairwise(counts)] == [3] * 13
    entry = sum(array.nbytes for array in tracker.state().values())
    assert totals[-1] >= 0.9 * entry


def frame(index: int) -> NDArray[np.uint8]:
    return np.full((24, 40, 3), index % 256, np.uint8)


# the run with a real bundle


def looks(*megabytes: float) -> tuple[Look, ...]:
    return tuple(
        Look(frames=50 * number, resident_bytes=round(size * 1e6), state_bytes=1000)
        for number, size in enumerate(megabytes, start=1)
    )


def test_growth_counts_from_the_hundredth_frame() -> None:
    rising = looks(10, *(100 + n for n in range(11)))
    assert slope(rising) == pytest.approx(1e6 / 50)
    assert growth(rising) == pytest.approx(0.1)
    assert not is_flat(rising)
    assert is_flat(looks(10, 90, *(100, 100.2, 99.9) * 4)) is False
    assert is_flat(looks(10, *(100, 100.2, 99.9) * 4))
    assert is_flat(looks(10, 100))


def test_the_page_says_whether_memory_grows() -> None:
    page = render(results(looks(50, *(100, 100.4) * 20)))
    assert "it is flat" in page
    assert "between 100.0 and 100.4 MB" in page
    assert "| 2050 | 100.4 |" in page or "| 2000 | 100.0 |" in page
    assert "it is **not flat**" in render(results(looks(50, *(100 + n for n in range(40)))))


def test_the_page_tells_a_step_from_steady_growth() -> None:
    page = " ".join(render(results(looks(50, *[100.0] * 10, *[100.5] * 30))).split())
    assert re.search(r"rises by \+\d+\.\d kB", page)
    assert "second half alone by +0.0 kB" in page.replace("-0.0", "+0.0")


def results(seen: tuple[Look, ...]) -> StreamResults:
    return StreamResults(
        machine=Machine(cpu="a processor", cores=2, system="a system", versions={}),
        date="2026-01-02",
        command="a command",
        model="a model",
        bank="pooled",
        engine="litert",
        threads=2,
        every=50,
        run=StreamRun(looks=seen, milliseconds=300.0),
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_bundle_is_tracked_and_looked_at(tam_bundle: Bundle, tmp_path: Path) -> None:
    job = StreamJob(
        bundle=str(tam_bundle.path),
        engine="onnxruntime",
        picture=str(photographs()[0]),
        frames=5,
        every=2,
        threads=1,
        lock=str(tmp_path / "lock"),
    )
    run = run_child("stream_worker", job, StreamRun, tmp_path / "stream")
    assert [look.frames for look in run.looks] == [2, 4, 5]
    assert all(look.resident_bytes > 50e6 for look in run.looks)
    assert run.looks[0].state_bytes < run.looks[1].state_bytes
    assert run.milliseconds > 1


def test_bad_input_is_answered_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tam_bundle: Bundle
) -> None:
    out = ["--work", str(tmp_path / "w"), "-o", str(tmp_path / "o.md")]
    assert main(["--engine", "coreml", *out]) == 2
    assert "known: litert, executorch, onnxruntime" in capsys.readouterr().err
    assert main(["--model", "nonesuch", *out]) == 2
    assert "unknown model 'nonesuch'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    job = StreamJob(
        bundle=str(tam_bundle.path), engine="litert", picture="", frames=2, every=1, threads=1
    )
    with pytest.raises(ChildError):
        run_child("stream_worker", job, StreamRun, tmp_path / "stream")

"""What knobs cost is measured against the model without them, and said in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phoneward.apps.cli.artifacts import price_line
from phoneward.bundle import Artifact, Bundle, Parity, Price
from phoneward.export import price as price_module
from phoneward.export.kernels.names import kernels_of_stage
from phoneward.export.models import find
from phoneward.export.price import Side, price_of
from phoneward.export.recipe import Recipe
from phoneward.names import ParityStatus, Precision
from phoneward.profiles.bundle_kernels import stages_in
from phoneward.runtime.parity import Reference

LOGITS = np.linspace(-1, 1, 3 * 16, dtype=np.float32).reshape(3, 4, 4)
CONSTANTS = {"memory_slots": 7, "pooling": "none", "pointer_slots": 16}


ARTIFACT = Artifact(
    stage="propagate",
    format="onnx",
    precision=Precision.FP32,
    path="propagate.onnx",
    bytes=1,
    sha256="0" * 64,
    inputs=(),
    outputs=(),
    parity=Parity(status=ParityStatus.OK, engine="onnxruntime"),
)


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def side(logits: np.ndarray, **constants: int | str) -> Side:  # type: ignore[type-arg]
    arrays = {
        "clip/frames": np.zeros((len(logits), 4, 4, 3), np.uint8),
        "clip/point": np.zeros(2, np.float32),
        "clip/logits": logits,
    }
    return Side({**CONSTANTS, **constants}, Reference(arrays), Path(), None)


def test_the_masks_are_compared_with_the_full_models() -> None:
    same = price_of(side(LOGITS), side(LOGITS), random_weights=False, threads=1)
    assert (same.mean_iou, same.min_iou, same.logit_difference) == (1, 1, 0)
    assert (same.engine, same.milliseconds, same.baseline_milliseconds) == (None, None, None)
    other = LOGITS.copy()
    other[2] = -1  # the object is lost on one of three frames
    lost = price_of(side(other, pointer_slots=0), side(LOGITS), random_weights=True, threads=1)
    assert lost.min_iou == 0
    assert lost.mean_iou == pytest.approx(2 / 3)
    assert lost.logit_difference == pytest.approx(2 / np.ptp(LOGITS[2]), rel=1e-5)
    assert lost.knobs == "7 memory slots, no pooling, no object pointers"
    assert lost.random_weights


@pytest.mark.parametrize(
    ("seconds", "taken", "rounds"),
    [((0.040, 0.080), (40.0, 80.0), 9), ((0.080, 0.040), (80.0, 40.0), 9), ((2, 3), (2e3, 3e3), 3)],
)
def test_each_model_is_told_its_own_time(
    seconds: tuple[float, float],
    taken: tuple[float, float],
    rounds: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    lasting = dict(zip(("turned", "baseline"), seconds, strict=True))

    @contextmanager
    def opened(engine: str, path: Path, *_: object) -> Iterator[Callable[[object], None]]:
        first = iter([100.0])  # to warm up, which does not count
        yield lambda _: clock.wait(next(first, lasting[path.parent.name]))

    monkeypatch.setattr(price_module, "time", clock)
    monkeypatch.setattr(price_module, "open_session", opened)
    sides = (replace(side(LOGITS), folder=Path(name), artifact=ARTIFACT) for name in lasting)
    price = price_of(*sides, random_weights=False, threads=2)
    found = (price.milliseconds, price.baseline_milliseconds)
    assert found == pytest.approx(taken)
    assert (price.rounds, price.threads, price.format) == (rounds, 2, "onnx")


def test_an_export_with_knobs_says_what_they_cost_and_gain(tam_bundle: Bundle) -> None:
    price = tam_bundle.manifest.price
    assert price is not None
    assert price.random_weights
    assert price.knobs == "2 memory slots, older pooled, object pointers"
    assert price.baseline == "7 memory slots, older pooled, object pointers"
    assert 0 < price.min_iou <= price.mean_iou < 1
    assert 0 < price.logit_difference < 2
    assert (price.format, price.precision, price.engine) == ("onnx", "fp32", "onnxruntime")
    assert (price.threads, price.cached) == (2, False)
    assert price.rounds is not None
    assert 3 <= price.rounds <= 9
    assert price.milliseconds is not None
    assert price.baseline_milliseconds is not None
    # which is less is up to the machine: another process may take its cores meanwhile
    assert price.milliseconds > 0
    assert price.baseline_milliseconds > 0
    assert not list(tam_bundle.path.glob("baseline*"))


def test_fewer_slots_are_less_work(tam_bundle: Bundle) -> None:
    """A bank of two frames instead of seven: two thirds of the keys."""
    card, _ = find("efficienttam_nano")
    whole = kernels_of_stage(card, "propagate", Recipe("onnx"))
    stages = {each.stage: each for each in stages_in(tam_bundle, "onnx", Precision.FP32)}
    turned = stages["propagate"]
    work, baseline = (sum(kernel.macs for kernel in each.kernels) for each in (turned, whole))
    assert 0 < work < 0.8 * baseline


def test_the_host_is_told_what_the_bank_is(tam_bundle: Bundle) -> None:
    assert tam_bundle.manifest.constants == {
        "image_size": 256,
        "memory_slots": 2,
        "pointer_slots": 16,
        "point_slots": 16,
        "memory_channels": 64,
        "pooling": "older",
    }


def test_the_price_is_one_line() -> None:
    price = Price(
        knobs="3 memory slots",
        baseline="7 memory slots",
        random_weights=True,
        mean_iou=0.9514,
        min_iou=0.9,
        logit_difference=0.16,
    )
    assert price_line(price) == (
        "3 memory slots instead of 7 memory slots: mask IoU 0.951 (least 0.900) with the full "
        "model's, logits off by 1.6e-01 of their range; random weights, whose masks are noise; "
        "no engine here to time them"
    )
    timed = price.model_copy(
        update={
            "random_weights": False,
            "milliseconds": 40.0,
            "baseline_milliseconds": 80.0,
            "engine": "litert",
            "format": "tflite",
            "precision": "fp16",
            "threads": 2,
            "rounds": 9,
        }
    )
    line = price_line(timed)
    assert "noise" not in line
    assert line.endswith(
        "propagate takes 40.0 ms instead of 80.0 ms "
        "(0.50x; litert, tflite-fp16, 2 threads, median of 9)"
    )

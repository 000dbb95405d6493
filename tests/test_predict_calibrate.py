"""A few measurements of a device teach the latency model what it is like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoneward.errors import PredictionError
from phoneward.profiles.kernels import Kernel, StageKernels
from phoneward.profiles.predict.calibrate import (
    Anchor,
    calibrate,
    read_calibration,
    write_calibration,
)
from phoneward.profiles.predict.predictor import Target, predict_stage


def graph(channels: int, depth: int = 12, kind: str = "pointwise") -> StageKernels:
    shape = (1, channels, 28, 28)
    kernel = Kernel.model_validate(
        {
            "kind": kind,
            "ops": ("aten.conv2d",),
            "macs": channels * 784 * (9 if kind == "depthwise" else channels),
            "reads": channels * 784,
            "writes": channels * 784,
            "params": channels * channels,
            "in_shape": shape,
            "out_shape": shape,
        }
    )
    return StageKernels(stage=f"{kind}{channels}", kernels=(kernel,) * depth)


def anchors(factor: float) -> list[Anchor]:
    """Times of a device `factor` times slower than the model says a Pixel 3 is."""
    like = Target("pixel-3", "tflite", "cpu")
    graphs = [graph(c, d) for c, d in ((32, 8), (64, 12), (96, 20), (128, 16), (192, 30))]
    return [
        Anchor(g, factor * predict_stage(g, like).latency_ms, "tflite", "cpu 4t all")
        for g in graphs
    ]


def test_a_new_device_is_known_after_five_measurements() -> None:
    found = calibrate("my-phone", anchors(3.0))
    asked, target = graph(160, 14), Target("my-phone")
    predicted = predict_stage(asked, target, found)
    like = predict_stage(asked, Target("pixel-3", "tflite", "cpu")).latency_ms
    assert predicted.latency_ms == pytest.approx(3 * like, rel=0.15)
    assert "5 own measurements of my-phone" in predicted.basis
    slow = predict_stage(asked, target, calibrate("my-phone", anchors(9.0)))
    assert slow.latency_ms == pytest.approx(9 * like, rel=0.2)


def test_more_measurements_narrow_the_interval() -> None:
    asked, target = graph(160, 14), Target("my-phone")
    few = predict_stage(asked, target, calibrate("my-phone", anchors(1.0)[:1])).interval_ms
    many = predict_stage(asked, target, calibrate("my-phone", anchors(1.0))).interval_ms
    assert np.log(many[1] / many[0]) < np.log(few[1] / few[0])


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    path, found = tmp_path / "my-phone.json", calibrate("my-phone", anchors(2.0), soc="A15")
    write_calibration(found, path)
    assert read_calibration(path) == found
    assert read_calibration(path).soc == "A15"


def test_a_known_device_is_calibrated_on_top_of_its_chip() -> None:
    assert calibrate("galaxy-s24", anchors(1.0)).soc == "Snapdragon 8 Gen 3"


@pytest.mark.parametrize("damage", ["{", '{"kind": "calibration"}', '{"kind": "latency"}'])
def test_a_file_that_is_none_is_refused_with_its_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(damage)
    with pytest.raises(PredictionError, match=r"some\.json"):
        read_calibration(path)
    with pytest.raises(PredictionError, match=r"none\.json"):
        read_calibration(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("device", "bad", "words"),
    [
        ("my-phone", [], "at least one"),
        ("My Phone!", anchors(1.0), "device"),
        ("my-phone", [Anchor(graph(8), 0.0, "tflite")], "latency_ms"),
        ("my-phone", [Anchor(graph(8), 1.0, "caffe")], "runtime"),
        ("my-phone", [Anchor(StageKernels(stage="s", kernels=()), 1.0, "tflite")], "kernels"),
    ],
)
def test_bad_anchors_are_refused(device: str, bad: list[Anchor], words: str) -> None:
    with pytest.raises(PredictionError, match=words):
        calibrate(device, bad)


def test_a_calibration_answers_for_its_device_alone() -> None:
    with pytest.raises(PredictionError, match="of my-phone, not galaxy-s24"):
        predict_stage(graph(64), Target("galaxy-s24"), calibrate("my-phone", anchors(1.0)))

"""A predicted latency has a basis, an interval and parts, and says what it could not price."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phoneward.errors import PredictionError, TooMuchUnpriced, UnknownName
from phoneward.profiles.kernels import Kernel, StageKernels
from phoneward.profiles.predict.features import COLUMNS, graph_features, identity
from phoneward.profiles.predict.intervals import of_sum, widening
from phoneward.profiles.predict.parameters import (
    load_parameters,
    parse_parameters,
    shipped_rows,
)
from phoneward.profiles.predict.physics import Physics
from phoneward.profiles.predict.predictor import Target, predict_stage, predict_stages
from phoneward.profiles.predict.rows import digest, load_rows

S24 = Target("galaxy-s24", "tflite", "npu", "fp16")


def conv(channels: int = 64, pixels: int = 28, window: int = 3, name: str = "conv") -> Kernel:
    shape = (1, channels, pixels, pixels)
    return Kernel(
        kind="pointwise" if window == 1 else "conv",
        ops=("aten.conv2d", "aten.relu"),
        module=name,
        macs=channels * channels * window * window * pixels * pixels,
        reads=channels * pixels * pixels,
        writes=channels * pixels * pixels,
        params=channels * channels * window * window,
        in_shape=shape,
        out_shape=shape,
        window=(window, window),
    )


def stage(*kernels: Kernel, name: str = "classify", **unknown: int) -> StageKernels:
    return StageKernels(stage=name, kernels=kernels, unknown=unknown)


NET = stage(*(conv(name=f"layer{index}") for index in range(20)))


def test_a_prediction_has_parts_that_add_up_and_an_interval_around_it() -> None:
    found = predict_stage(NET, S24)
    low, high = found.interval_ms
    assert 0 < low < found.latency_ms < high
    assert sum(share.latency_ms for share in found.breakdown) == pytest.approx(found.latency_ms)
    assert [share.module for share in found.breakdown[:-1]] == [k.module for k in NET.kernels]
    assert found.breakdown[-1].kind == "inference"
    assert found.unpriced == ()
    assert "Samsung Galaxy S24" in found.basis
    assert "never measured" in found.basis


def test_a_graph_that_is_known_is_predicted_near_its_row_and_more_surely() -> None:
    observed = shipped_rows()
    row = next(
        row
        for row in observed.rows
        if row.model == "torchvision:resnet18@224"
        and row.group.device == "Samsung Galaxy S24"
        and (row.group.runtime, row.group.numeric) == ("tflite", "fp")
    )
    from phoneward.profiles.predict.covariance import Points
    from phoneward.profiles.predict.parameters import shipped_posterior

    features = observed.features[row.model][None]
    asked = Points(
        features, (identity(features[0]),), (row.group,), np.zeros(1, int), np.zeros(1, int)
    )
    mean, spread = shipped_posterior().predict(asked)
    assert np.exp(mean[0]) == pytest.approx(row.latency_ms, rel=0.1)
    new = Points(features * 1.3, ("new",), (row.group,), np.zeros(1, int), np.zeros(1, int))
    assert shipped_posterior().predict(new)[1][0, 0] > 1.5 * spread[0, 0]


def test_stages_add_up_under_their_names() -> None:
    one, two = predict_stage(NET, S24), predict_stages([NET, stage(conv(), name="head")], S24)
    assert two.latency_ms > one.latency_ms
    assert {share.name.split("/")[0] for share in two.breakdown} == {"classify", "head"}
    assert sum(share.latency_ms for share in two.breakdown) == pytest.approx(two.latency_ms)
    # errors of two stages on one device go together: no narrower than if they were independent
    assert two.interval_ms[1] / two.latency_ms > 1.05


def test_a_few_unknown_ops_are_listed_and_many_are_refused() -> None:
    many = stage(*NET.kernels, *NET.kernels, **{"aten.fft": 1})
    found = predict_stage(many, S24)
    assert [(op.op, op.count) for op in found.unpriced] == [("aten.fft", 1)]
    assert found.unpriced[0].reason
    with pytest.raises(TooMuchUnpriced, match=r"aten\.fft x9") as refused:
        predict_stage(stage(*NET.kernels, **{"aten.fft": 9}), S24)
    assert refused.value.ops == {"aten.fft": 9}
    with pytest.raises(TooMuchUnpriced, match="no op has a price"):
        predict_stage(stage(), S24)


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        (Target("host"), UnknownName, "host"),
        (Target("galaxy-s24", runtime="caffe"), PredictionError, "coreml, tflite"),
        (Target("galaxy-s24", unit="abacus"), PredictionError, "npu"),
        (Target("galaxy-s24", precision="fp8"), PredictionError, "w8a16"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(
    target: Target, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        predict_stage(NET, target)


def test_a_chip_that_nobody_measured_gets_a_wide_interval_and_says_so() -> None:
    found = predict_stage(NET, Target("pixel-6", "tflite"))
    known = predict_stage(NET, Target("pixel-3", "tflite", "cpu"))
    assert "no latency of its Tensor G1" in found.basis
    assert width(found.interval_ms) > 1.5 * width(known.interval_ms)


def test_integers_are_predicted_from_rows_of_their_own() -> None:
    quick = predict_stage(NET, Target("galaxy-s24", "tflite", "npu", "int8"))
    assert "w8a8" in quick.basis
    assert quick.latency_ms != predict_stage(NET, S24).latency_ms


def width(interval: tuple[float, float]) -> float:
    return float(np.log(interval[1] / interval[0]))


amounts = st.lists(
    st.floats(0, 1e9, allow_nan=False), min_size=len(COLUMNS), max_size=len(COLUMNS)
).map(np.array)


@given(amounts, st.integers(0, len(COLUMNS) - 1), st.floats(1, 1e9))
def test_more_work_is_never_quicker(
    features: np.ndarray[tuple[int], np.dtype[np.float64]], column: int, more: float
) -> None:
    physics: Physics = load_parameters().prior.physics
    base = features + 1
    bigger = base.copy()
    bigger[column] += more
    for family in (*physics.prices, "unit nobody knows"):
        assert physics.log_time(bigger, family) >= physics.log_time(base, family)


kinds = st.sampled_from(["conv", "pointwise", "depthwise", "linear", "matmul", "norm", "move"])
kernels = st.builds(
    lambda kind, channels, pixels, macs: Kernel(
        kind=kind,
        ops=("aten.op",),
        macs=macs,
        reads=channels * pixels,
        writes=channels * pixels,
        in_shape=(1, channels, pixels, pixels),
        out_shape=(1, channels, pixels, pixels),
    ),
    kinds,
    st.integers(1, 4096),
    st.integers(1, 512),
    st.integers(0, 10**12),
)


@given(st.lists(kernels, min_size=1, max_size=20))
def test_any_graph_of_known_kernels_has_a_finite_prediction(found: list[Kernel]) -> None:
    features = graph_features(found)
    assert np.isfinite(features).all()
    assert (features >= 0).all()
    predicted = predict_stage(stage(*found), S24)
    low, high = predicted.interval_ms
    assert 0 < low <= predicted.latency_ms <= high < np.inf


def test_the_shipped_fit_belongs_to_the_shipped_rows() -> None:
    assert load_parameters().digest == digest()
    assert parse_parameters(load_parameters().text()).text() == load_parameters().text()
    assert {row.model for row in shipped_rows().rows} <= set(shipped_rows().features)
    reasons = {row.excluded.split(",")[0] for row in load_rows()}
    assert "cliff: the graph is in pieces" in reasons


@pytest.mark.parametrize("text", ["", "{}", '{"columns": ["conv"]}', "[1]"])
def test_a_damaged_fit_is_an_error(text: str) -> None:
    with pytest.raises(PredictionError, match=r"parameters\.json"):
        parse_parameters(text)


def test_intervals_hold_what_they_say() -> None:
    rng = np.random.default_rng(1)
    errors = rng.normal(size=4000)
    assert widening(errors, np.ones(4000)) == pytest.approx(1, abs=0.06)
    assert widening(2 * errors, np.ones(4000)) == pytest.approx(2, abs=0.12)
    mean, spread = np.log([2.0, 3.0]), np.array([[0.04, 0.03], [0.03, 0.04]])
    latency, (low, high) = of_sum(mean, spread, 1.0)
    sums = np.exp(rng.multivariate_normal(mean, spread, size=20000)).sum(axis=1)
    assert latency == pytest.approx(5)
    assert np.mean((sums > low) & (sums < high)) == pytest.approx(0.9, abs=0.02)


def test_loading_and_predicting_takes_a_second_and_no_scipy_or_torch() -> None:
    script = (
        "import sys; from phoneward.profiles.predict.predictor import *;"
        "from phoneward.profiles.kernels import Kernel, StageKernels as S;"
        "k = Kernel(kind='conv', ops=('a',), macs=9, reads=9, writes=9);"
        "print(predict_stage(S(stage='s', kernels=(k,)), Target('iphone-12')).latency_ms);"
        "assert not {'torch', 'scipy'} & set(sys.modules)"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) > 0
    # the second of the claim is for a free machine, imports not counted
    assert time.perf_counter() - began < 15

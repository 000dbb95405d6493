"""The shipped latency model foretells rows that it is made to forget, and its fit can be redone."""

from __future__ import annotations

import numpy as np
import pytest

from phoneward.apps.bench.predict_baselines import BASELINES, macs_only, six_features
from phoneward.apps.bench.predict_protocol import (
    PROTOCOLS,
    Hidden,
    Scores,
    folds,
    keys_of,
    known_elsewhere,
    no_relative,
    nowhere,
    score,
)
from phoneward.apps.bench.predict_rows import architecture, carry
from phoneward.profiles.predict.covariance import scale_of
from phoneward.profiles.predict.hyper import fit_variances
from phoneward.profiles.predict.intervals import QUANTILE
from phoneward.profiles.predict.parameters import load_parameters, shipped_rows
from phoneward.profiles.predict.physics import fit_physics
from phoneward.profiles.predict.process import Posterior
from phoneward.profiles.predict.ratios import KIND, load_ratios
from phoneward.profiles.predict.rows import Observations, load_observations


@pytest.fixture(scope="module")
def observed() -> Observations:
    return load_observations()


@pytest.fixture(scope="module")
def scores(observed: Observations) -> dict[str, Scores]:
    everything = np.arange(len(observed.rows))
    return score(observed, [(everything, load_parameters().prior)], PROTOCOLS)


def test_rows_left_out_are_foretold(observed: Observations, scores: dict[str, Scores]) -> None:
    # with the shipped prices, which have seen the rows: an upper bound, to notice a decline
    units = np.array([row.group.unit for row in observed.rows])
    bounds = {"npu": (0.85, 0.85), "cpu": (0.75, 0.8)}
    for unit, (least, covered) in bounds.items():
        chosen = units == unit
        errors = (scores["known elsewhere"].mean - observed.log_ms)[chosen]
        assert np.mean(np.abs(np.expm1(errors)) <= 0.2) >= least
        factor = load_parameters().widening[unit]
        inside = np.abs(errors) <= QUANTILE * factor * scores["known elsewhere"].std[chosen]
        assert covered <= np.mean(inside) <= 0.99


def test_knowing_less_is_less_sure(scores: dict[str, Scores]) -> None:
    widths = [np.median(scores[name].std) for name in PROTOCOLS]
    assert widths == sorted(widths)
    assert not any(np.isnan(found.mean).any() for found in scores.values())


@pytest.mark.parametrize("hidden", [known_elsewhere, nowhere, no_relative])
def test_leaving_out_is_conditioning_on_the_rest(observed: Observations, hidden: Hidden) -> None:
    asked, prior = 700, load_parameters().prior
    found = score(observed, [(np.array([asked]), prior)], {"one": hidden})["one"]
    rest = observed.take(np.flatnonzero(~hidden(keys_of(observed), asked)).tolist())
    posterior = Posterior(prior, rest.points, rest.log_ms, rest.noise)
    mean, spread = posterior.predict(observed.points.take(np.array([asked])))
    assert found.mean[asked] == pytest.approx(mean[0], abs=1e-6)
    noise = prior.variances["noise"] * (observed.noise[asked] - 1)
    assert found.std[asked] ** 2 == pytest.approx(spread[0, 0] + noise, rel=1e-4)


def test_hidden_rows_are_what_the_protocols_say(observed: Observations) -> None:
    keys, rows = keys_of(observed), observed.rows
    asked = next(i for i, row in enumerate(rows) if row.model.startswith("plain:mobilenet_v1"))
    strict = {rows[i].model for i in np.flatnonzero(nowhere(keys, asked))}
    assert len(strict) > 5  # its other sizes
    assert all(
        rows[i].model == rows[asked].model for i in np.flatnonzero(known_elsewhere(keys, asked))
    )
    assert no_relative(keys, asked).sum() >= nowhere(keys, asked).sum()
    names = [{rows[i].architecture for i in fold} for fold in folds(observed)]
    assert sum(map(len, names)) == len(set.union(*names))


def test_prices_can_be_found_again(observed: Observations) -> None:
    points, shipped = observed.points, load_parameters().prior.physics
    found = fit_physics(
        points.features, points.model, points.families, points.group, observed.log_ms
    )
    assert set(found.prices) == set(shipped.prices)
    for family, price in found.prices.items():
        np.testing.assert_allclose(price, shipped.prices[family], rtol=0.02)
    np.testing.assert_allclose(
        scale_of(points.features, found).totals_mean, load_parameters().prior.scale.totals_mean
    )


def test_variances_of_a_part_are_found(observed: Observations) -> None:
    part = observed.take([i for i, row in enumerate(observed.rows) if row.group.unit == "ane"])
    prior = load_parameters().prior
    residual = part.log_ms - prior.mean(part.points)
    model = (prior.physics, prior.scale)
    found = fit_variances(part.points, residual, part.noise, model, dict(prior.variances), steps=5)
    assert set(found) == set(prior.variances)
    assert all(0 < value < 25 for value in found.values())


def test_ratios_reach_predictions_and_no_evaluation(observed: Observations) -> None:
    assert not any(row.kind == KIND for row in observed.rows)
    derived = [row for row in shipped_rows().rows if row.kind == KIND]
    assert {row.group.soc for row in derived} == {ratio.soc for ratio in load_ratios()}
    assert all(row.noise > 1 for row in derived)


def test_baselines_are_exact_where_they_are_true() -> None:
    rng = np.random.default_rng(0)
    plain = rng.uniform(1, 9, (30, 6))
    assert macs_only(plain, plain[0], 2 * plain[:, :3].sum(axis=1)) == pytest.approx(
        2 * plain[0, :3].sum()
    )
    ms = 1 + plain @ np.arange(6)
    assert six_features(plain, plain[3], ms) == pytest.approx(ms[3], rel=1e-6)
    assert list(BASELINES) == ["MACs only", "six features"]


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("torchvision:mobilenet_v3_large@224", "mobilenetv3"),
        ("timm:tf_mobilenetv3_small_075@224", "mobilenetv3"),
        ("plain:mobilenet_v1_025@128", "mobilenetv1"),
        ("torchvision:efficientnet_v2_s@384", "efficientnetv2"),
        ("timm:efficientnet_b0@224", "efficientnet"),
        ("timm:efficientformerv2_s0@224", "efficientformerv2"),
        ("torchvision:resnet18@224", "resnet"),
    ],
)
def test_sizes_of_one_architecture_are_relatives(name: str, family: str) -> None:
    assert architecture(name) == family


def published(**changes: str) -> dict[str, str]:
    row = {
        "model": "mobilenet",
        "variant": "",
        "input_resolution": "224",
        "device": "Raspberry Pi 5",
        "soc": "BCM2712",
        "runtime": "ncnn",
        "compute_unit": "CPU 4t (all cores)",
        "precision": "int8",
        "latency_ms": "33.9",
        "top1_or_metric": "avg; min=9.00 max=72.98",
        "source_title": "ncnn benchmark README",
        "source_ref": "[log] line 1",
    }
    return {**row, **changes}


def test_carrying_takes_the_least_time_and_says_what_is_no_data() -> None:
    names = {("mobilenet", "", "224"): "timm:mobilenetv1_100@224"}
    (row,) = carry([published()], names)
    assert (row["latency_ms"], row["threads"], row["numeric"]) == ("9.00", "4t all", "w8a8")
    assert row["excluded"] == ""
    pieces = published(runtime="ONNX Runtime", compute_unit="NPU (npu:506/cpu:374 layers)")
    assert "in pieces" in carry([pieces], names)[0]["excluded"]
    blog = published(source_ref="[blog] somewhere")
    assert carry([blog], names)[0]["excluded"]
    assert carry([published(model="unknown")], names) == []

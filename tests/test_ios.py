"""What of the iOS place can be tested without a Mac: refusals, and the translation of times."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from phoneward.bundle import Bundle
from phoneward.errors import EngineError, PlaceError, PlaceUnreachable
from phoneward.profiles.measure import PLACES, Request
from phoneward.profiles.measure.ios import assemble, choose_device
from phoneward.runtime.engines.coreml_benchmark import (
    ConnectedDevice,
    Timings,
    Wish,
    connected_devices,
    samples_of,
    time_on,
)
from tests.ssh_board import unread_bundle

PHONE = ConnectedDevice("Ada's iPhone", "iphone", "18.2", "0000-AAAA", None)
PAD = ConnectedDevice("Pad", "ipad", "18.1", "0000-BBBB", None)


@pytest.fixture
def unread(tmp_path: Path) -> Bundle:
    return unread_bundle(tmp_path / "unread")


@pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")
def test_elsewhere_it_says_what_it_needs(unread: Bundle) -> None:
    with pytest.raises(PlaceError, match="ios: needs macOS with Xcode; this is linux"):
        PLACES.get("ios")("", Request(unread), lambda step: None)


@pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")
def test_coremltools_own_refusal_is_translated() -> None:
    pytest.importorskip("coremltools")
    with pytest.raises(EngineError, match="cannot be listed: The 'devicectl' command is required"):
        connected_devices()


def test_a_device_is_found_by_name_or_number_or_alone() -> None:
    assert choose_device("ios", "", [PHONE]) is PHONE
    assert choose_device("ios", "Pad", [PHONE, PAD]) is PAD
    assert choose_device("ios", "0000-AAAA", [PHONE, PAD]) is PHONE
    with pytest.raises(PlaceUnreachable, match="there is: Ada's iPhone, Pad"):
        choose_device("ios:Mac", "Mac", [PHONE, PAD])
    with pytest.raises(PlaceUnreachable, match="there is: none"):
        choose_device("ios", "", [])
    with pytest.raises(PlaceError, match="several devices"):
        choose_device("ios", "", [PHONE, PAD])


def test_a_measurement_of_coremltools_becomes_nanoseconds() -> None:
    perf = pytest.importorskip("coremltools.models.ml_program.experimental.perf_utils")
    measurement = perf.MLModelBenchmarker.Measurement.from_samples([1.5, 2.000001])
    assert samples_of(measurement) == (1_500_000, 2_000_001)
    with pytest.raises(EngineError, match="none"):
        samples_of(perf.MLModelBenchmarker.Measurement.from_samples([]))
    with pytest.raises(EngineError, match="none"):
        samples_of(perf.MLModelBenchmarker.Measurement.from_samples([1.0, -1.0]))


def test_times_become_a_report(unread: Bundle) -> None:
    (package,) = (a for a in unread.manifest.artifacts if a.format == "coreml")
    timings = Timings((900, 100, 110), (50, 9, 9, 9, 9, 9, 5, 6))
    report = assemble("ios", Request(unread), PHONE, [(package, timings)])
    (stage,) = report.stages
    assert stage.result.provenance == "measured"
    assert stage.result.samples_ns == (5, 6)
    assert (stage.result.first_ns, stage.result.warmup_runs) == (50, 5)
    assert (stage.result.cold_load_ns, stage.result.warm_load_ns) == ((900,), (100, 110))
    assert (report.machine.os, stage.artifact_sha256) == ("iOS 18.2", package.sha256)


def test_a_package_of_images_is_refused_before_an_app_is_built(tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model(specificationVersion=4)
    feature = model.description.input.add(name="photo")
    feature.type.imageType.width = feature.type.imageType.height = 8
    path = tmp_path / "images.mlmodel"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match=r"takes images \(photo\)"):
        time_on(PHONE, "TEAM", [Wish(path, {}, 1, 1)])
    path.write_bytes(b"no model")
    with pytest.raises(EngineError, match="cannot be loaded"):
        time_on(PHONE, "TEAM", [Wish(path, {}, 1, 1)])

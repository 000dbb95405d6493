"""The phone profiler against what the programs print, with a shell that stands for the phone's."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from phoneward.bundle import Bundle, Delegation
from phoneward.errors import BundleError, PlaceError, PlaceUnreachable, WrongArchitecture
from phoneward.profiles.measure import PLACES, Request
from phoneward.runtime.artifacts import Wanted
from tests.conftest import STAGE, artifact, write_manifest
from tests.fake_phone import BENCHMARK_MODEL, DATA, EXECUTOR_RUNNER, FakePhone, make_phone

if TYPE_CHECKING:
    from phoneward.profiles.report.schema import LatencyReport


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Files of three formats that no engine reads: what runs on the phone is a script."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "labels.txt").write_text("thing\n")
    (folder / "reference.npz").write_bytes(b"no reference is needed")
    artifacts = []
    for format_name, suffix in (("tflite", ".tflite"), ("executorch", ".pte"), ("onnx", ".onnx")):
        path = folder / f"classify{suffix}"
        path.write_bytes(format_name.encode() * 1000)
        made = artifact(path, format_name, STAGE)
        if format_name != "onnx":
            delegation = Delegation(delegate="XNNPACK", partitions=2, delegated_ops=62)
            made = made.model_copy(update={"delegation": delegation})
        artifacts.append(made)
    write_manifest(folder, artifacts)
    return Bundle.open(folder)


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePhone:
    phone = make_phone(tmp_path / "phone")
    phone.plug_in(monkeypatch)
    return phone


@pytest.fixture
def profile(bundle: Bundle, phone: FakePhone) -> Callable[..., LatencyReport]:
    """Profile with a runner; whatever happens, nothing is left on the phone."""

    def run(script: str, address: str = "", **changes: object) -> LatencyReport:
        request = Request(bundle, runs=10, cold_starts=2, runner=phone.runner(script))
        try:
            return PLACES.get("adb")(address, replace(request, **changes), lambda step: None)  # type: ignore[arg-type]
        finally:
            phone.wait_until_clean()

    return run


def test_benchmark_model_becomes_a_report(
    profile: Callable[..., LatencyReport], phone: FakePhone, bundle: Bundle
) -> None:
    report = profile(BENCHMARK_MODEL, threads=2, cores=(4, 5))
    assert report.place == "adb:38131FDJH00"
    assert report.machine.name == "Google Pixel 8"
    assert (report.machine.os, report.machine.cpu) == ("Android 15", "Tensor G3")
    assert report.machine.facts["thermal status before"] == "none"
    (stage,) = report.stages
    assert (stage.format, stage.engine, stage.pinned_cores) == ("tflite", "litert", (4, 5))
    assert stage.artifact_sha256 in {a.sha256 for a in bundle.manifest.artifacts}
    result = stage.result
    assert result.provenance == "measured"
    assert result.samples_ns == ()
    assert result.aggregate is not None
    assert result.aggregate.count == 20
    assert result.aggregate.mean_ns == pytest.approx(12_093_700)
    assert (result.aggregate.min_ns, result.aggregate.max_ns) == (11_881_000, 14_233_000)
    assert result.aggregate.median_ns == 11_990_000
    assert (result.first_ns, result.warmup_runs) == (19_873_000, 40)
    assert result.cold_load_ns == (31_207_000, 31_207_000)
    assert result.memory is not None
    assert result.memory.peak_bytes == round(49.2539 * 2**20)
    assert [(op.kind, op.name) for op in result.ops] == [
        ("TfLiteXNNPackDelegate", "block_0/add;block_0/Conv2D"),
        ("PAD", "block_1/Pad"),
        ("TfLiteXNNPackDelegate", "logits"),
    ]
    assert [op.median_ns for op in result.ops] == [9_501_000, 322_000, 2_277_000]
    assert set((phone.home / "masks").read_text().split("\n")) == {"mask 30", ""}
    told = (phone.home / "arguments").read_text().splitlines()
    # help; the timed run; 2 cold starts; memory; 5 profiles of one inference
    assert len(told) == 10
    assert all("--num_threads=2 --use_xnnpack=true" in line for line in told[1:])
    assert stage.delegate == "XNNPACK"
    assert "--num_runs=10 --min_secs=0" in told[1]
    assert all("--num_runs=1 " in line for line in told[5:])


def test_executor_runner_becomes_a_report(
    profile: Callable[..., LatencyReport], phone: FakePhone
) -> None:
    report = profile(EXECUTOR_RUNNER, threads=2)
    (stage,) = report.stages
    assert (stage.format, stage.engine, stage.delegate) == ("executorch", "executorch", "XNNPACK")
    assert stage.result.provenance == "measured"
    assert len(stage.result.samples_ns) == 10
    assert stage.result.samples_ns[0] == 12_384_221
    assert (stage.result.first_ns, stage.result.warmup_runs) == (21_504_321, 5)
    assert stage.result.cold_load_ns == (58_413_021, 58_413_021)
    told = (phone.home / "arguments").read_text().splitlines()
    assert told[1] == (
        "--model_path=model.pte --cpu_threads=2 --print_output=none --num_executions=16"
    )


def test_an_older_executor_runner_tells_a_mean(profile: Callable[..., LatencyReport]) -> None:
    report = profile(EXECUTOR_RUNNER.replace("executor_runner.txt", "executor_runner_sum.txt"))
    (stage,) = report.stages
    assert stage.result.provenance == "measured"
    assert stage.result.aggregate is not None
    assert (stage.result.aggregate.count, stage.result.aggregate.min_ns) == (16, None)
    assert "the first inference in it" in stage.result.aggregate.source
    assert stage.result.cold_load_ns == ()


@pytest.mark.parametrize(
    ("devices", "address", "error", "words"),
    [
        ({}, "", PlaceUnreachable, "no phone is connected"),
        ({"A": "unauthorized"}, "", PlaceUnreachable, "allow USB debugging"),
        ({"A": "offline"}, "A", PlaceUnreachable, "offline"),
        ({"A": "device", "B": "device"}, "", PlaceError, "adb:SERIAL: A, B"),
        ({"A": "device"}, "C", PlaceUnreachable, "not connected; there is: A"),
        ({"A": "recovery"}, "A", PlaceUnreachable, "recovery"),
    ],
)
def test_without_the_right_phone_nothing_is_begun(
    profile: Callable[..., LatencyReport],
    phone: FakePhone,
    monkeypatch: pytest.MonkeyPatch,
    devices: dict[str, str],
    address: str,
    error: type[PlaceError],
    words: str,
) -> None:
    phone.devices = devices
    phone.plug_in(monkeypatch)
    with pytest.raises(error, match=words):
        profile(BENCHMARK_MODEL, address)
    assert phone.calls() == [["devices"]]


def test_there_has_to_be_an_adb(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    with pytest.raises(PlaceError, match="platform-tools"):
        PLACES.get("adb")("", Request(bundle), lambda step: None)


def test_adb_is_found_in_the_sdk(
    bundle: Bundle, phone: FakePhone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "sdk" / "platform-tools"
    tools.mkdir(parents=True)
    (phone.home / "adb").rename(tools / "adb")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    with pytest.raises(PlaceError, match="needs --runner"):
        PLACES.get("adb")("", Request(bundle), lambda step: None)


BENCH_HELP = f'case "$*" in *--help*) cat {DATA}/benchmark_model_help.txt; exit 1;; esac\n'
EXEC_HELP = f'case "$*" in *--help*) cat {DATA}/executor_runner_help.txt; exit 1;; esac\n'


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo hello from something else", "neither benchmark_model nor executor_runner.*hello"),
        ("kill -SEGV $$", "ended by SIGSEGV when asked"),
        (BENCH_HELP + "kill -SEGV $$", "benchmark_model was ended by SIGSEGV"),
        (BENCH_HELP + "echo 42", "told no times: 42"),
        (BENCH_HELP + ":", "told no times: it said nothing"),
        (BENCH_HELP + f"cat {DATA}/benchmark_model_broken.txt; exit 1", "failed with code 1.*load"),
        (BENCH_HELP + f"cat {DATA}/benchmark_model_unapplied.txt", "XNNPACK was not applied"),
        (
            BENCH_HELP + f"sed s/min=11881/min=-5/ {DATA}/benchmark_model.txt",
            "strange times",
        ),
        (
            BENCH_HELP + f"sed s/max=14233/max=1/ {DATA}/benchmark_model.txt",
            "strange times",
        ),
        (
            BENCH_HELP + f"grep -v Explicitly {DATA}/benchmark_model.txt",
            "does not say that it applied XNNPACK",
        ),
        (EXEC_HELP + "exit 0", "told no times"),
        (
            EXEC_HELP + f"grep -v 'Iteration 9 ' {DATA}/executor_runner.txt > $PHONE/log",
            "kept 15 of 16 times",
        ),
        (
            EXEC_HELP + "echo 'Backend XnnpackBackend is not registered.' > $PHONE/log",
            "without the delegate XnnpackBackend",
        ),
    ],
)
def test_a_runner_that_misbehaves_gives_no_report(
    profile: Callable[..., LatencyReport], script: str, words: str
) -> None:
    with pytest.raises(PlaceError, match=words):
        profile(script)


def test_unplugged_in_the_middle(profile: Callable[..., LatencyReport], phone: FakePhone) -> None:
    with pytest.raises(PlaceUnreachable, match="went away"):
        profile(BENCH_HELP + "touch $PHONE/unplugged; sleep 60")


def test_a_runner_of_another_processor_is_not_sent(
    bundle: Bundle, phone: FakePhone, tmp_path: Path
) -> None:
    program = tmp_path / "benchmark_model"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, 62) + bytes(44))
    request = Request(bundle, runner=program)
    with pytest.raises(WrongArchitecture, match="for x86_64, the phone runs arm64-v8a"):
        PLACES.get("adb")("", request, lambda step: None)
    program.write_bytes(b"MZ" + bytes(60))
    with pytest.raises(WrongArchitecture, match="no Android program"):
        PLACES.get("adb")("", request, lambda step: None)
    assert not any("push" in call for call in phone.calls())


def test_no_room_is_noticed_before_and_while_sending(
    profile: Callable[..., LatencyReport], phone: FakePhone, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone.full = "model.tflite"
    phone.plug_in(monkeypatch)
    with pytest.raises(PlaceError, match="no space left in /data/local/tmp"):
        profile(BENCHMARK_MODEL)
    phone.program("df", f"sed 's/ 76904124 / 0 /' {DATA / 'df.txt'}")
    with pytest.raises(PlaceError, match="no space in /data/local/tmp"):
        profile(BENCHMARK_MODEL)


def test_what_a_runner_cannot_do_is_refused(profile: Callable[..., LatencyReport]) -> None:
    with pytest.raises(BundleError, match="with benchmark_model, which runs tflite"):
        profile(BENCHMARK_MODEL, wanted=Wanted(format_name="onnx"))
    with pytest.raises(PlaceError, match="sustained"):
        profile(BENCHMARK_MODEL, sustained_s=60.0)

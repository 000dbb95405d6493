from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from phoneward.apps.bench.profiler import MOST_COST, agree, cost_of
from phoneward.bundle import MANIFEST, Bundle, sha256_of, size_of
from phoneward.errors import (
    ArtifactChanged,
    BundleError,
    EngineError,
    PhonewardError,
    PlaceError,
    UnknownName,
)
from phoneward.profiles.measure import PLACES, Request
from phoneward.profiles.measure.local.interval import next_median
from phoneward.profiles.measure.local.process import WORKER, run_worker
from phoneward.profiles.measure.local.records import FramesJob, Tracked
from phoneward.profiles.measure.local.steadiness import is_steady, sample, sustain, warm_up
from phoneward.profiles.report.file import read_report
from phoneward.profiles.report.schema import LatencyReport, Measured
from phoneward.runtime.artifacts import Wanted
from phoneward.runtime.op_times import OP_TIMES

ONNX = Wanted("onnxruntime")


def profile(request: Request) -> LatencyReport:
    return PLACES.get("host")("", request, lambda step: None)


def result_of(report: LatencyReport) -> Measured:
    (stage,) = report.stages
    assert isinstance(stage.result, Measured)
    return stage.result


@pytest.fixture(autouse=True)
def _own_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    assert not list(folder.iterdir()), "something was left lying around"


def test_a_report_has_what_every_process_gave(bundle: Bundle) -> None:
    report = profile(Request(bundle, ONNX, runs=12, cold_starts=2))
    (stage,), result = report.stages, result_of(report)
    assert len(result.samples_ns) == 12
    assert result.process_samples == (3, 3, 2, 2, 2)
    assert result.median_interval_ns is not None
    low, high = result.median_interval_ns
    assert low <= statistics.median(result.samples_ns) <= high
    assert len(result.cold_load_ns) == len(result.process_start_ns) == 2
    assert len(result.warm_load_ns) == 5
    assert result.first_ns is not None
    assert result.warmup_runs >= 10
    assert result.memory is not None
    assert result.memory.before_bytes is not None
    assert result.memory.before_bytes < result.memory.peak_bytes
    assert (stage.engine, stage.unit, stage.threads) == ("onnxruntime", "cpu", 1)
    assert stage.artifact_bytes == size_of(bundle.path / "classify.onnx")
    assert stage.engine_version == report.tools["onnxruntime"]
    assert {op.module for op in result.ops} >= {"1", "7"}
    assert report.place == "host"


# importing ExecuTorch's Inspector takes longer than all the rest
SLOW = {"executorch": pytest.mark.matrix}


@pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=SLOW.get(name, ())) for name in OP_TIMES]
)
def test_each_profiler_tells_ops_without_spoiling_the_samples(bundle: Bundle, engine: str) -> None:
    report = profile(Request(bundle, Wanted(engine), runs=1, cold_starts=0))
    result = result_of(report)
    kinds = " ".join(op.kind for op in result.ops)
    assert "Conv" in kinds
    assert sum(op.median_ns for op in result.ops) > 0
    assert not any("no op times" in warning for warning in report.warnings)
    # one process tells nothing of another
    assert result.median_interval_ns is None
    assert result.cold_load_ns == ()


@pytest.mark.matrix
def test_what_nothing_here_runs_is_named(bundle: Bundle) -> None:
    report = profile(Request(bundle, Wanted(), runs=1, cold_starts=0, op_times=False))
    assert {stage.engine for stage in report.stages} == {"litert", "executorch", "onnxruntime"}
    assert any("not profiled: none" in warning for warning in report.warnings)


def test_a_sustained_run_has_windows(bundle: Bundle) -> None:
    request = Request(bundle, ONNX, runs=1, cold_starts=1, op_times=False, sustained_s=1.2)
    windows = result_of(profile(request)).sustained
    assert len(windows) == 3
    starts = [window.start_ns for window in windows]
    assert starts == sorted(starts)
    assert all(window.runs > 10 for window in windows)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds processes")
def test_cores_are_bound_and_said(bundle: Bundle) -> None:
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    request = Request(bundle, ONNX, runs=1, cold_starts=0, op_times=False, cores=(core,))
    assert profile(request).stages[0].pinned_cores == (core,)
    assert os.sched_getaffinity(0) == before
    with pytest.raises(PlaceError, match="core 4000 cannot be used here"):
        profile(replace(request, cores=(4000,)))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"runs": 0}, PlaceError, "runs: 0 is less than 1"),
        ({"threads": 0}, PlaceError, "threads"),
        ({"sustained_s": float("nan")}, PlaceError, "sustained"),
        ({"stages": ("encode",)}, BundleError, "no stage 'encode'"),
        ({"wanted": Wanted("tensorrt")}, UnknownName, "tensorrt"),
        ({"wanted": Wanted("onnxruntime", "tflite")}, BundleError, "no such artifact"),
        ({"wanted": Wanted(None, "none")}, BundleError, "no such artifact"),
        ({"frames": 2}, BundleError, "no stage 'encode'"),
    ],
)
def test_bad_requests_are_refused(
    bundle: Bundle, changes: dict[str, object], error: type[PhonewardError], words: str
) -> None:
    request = Request(bundle, ONNX, runs=1, cold_starts=0, op_times=False)
    with pytest.raises(error, match=words):
        profile(replace(request, **changes))  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is there")
def test_an_engine_that_cannot_run_here_says_so(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="Core ML runs only on macOS"):
        profile(Request(bundle, Wanted("coreml"), runs=1))


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(bundle.path, tmp_path / "copy")
    return Bundle.open(tmp_path / "copy")


def test_a_changed_artifact_is_not_run(copy: Bundle) -> None:
    with (copy.path / "classify.onnx").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(ArtifactChanged):
        profile(Request(copy, ONNX, runs=1))


def test_an_engine_that_refuses_in_the_worker_is_quoted(copy: Bundle) -> None:
    file = copy.path / "classify.onnx"
    file.write_bytes(b"\x08\x07 no model")
    artifacts = [
        one.model_copy(update={"sha256": sha256_of(file), "bytes": size_of(file)})
        if one.format == "onnx"
        else one
        for one in copy.manifest.artifacts
    ]
    manifest = copy.manifest.model_copy(update={"artifacts": tuple(artifacts)})
    (copy.path / MANIFEST).write_text(manifest.model_dump_json())
    with pytest.raises(PlaceError, match=r"host: classify \(onnx-fp32, onnxruntime\): .* loaded"):
        profile(Request(Bundle.open(copy.path), ONNX, runs=1))


def workers_of(parent: int) -> list[int]:
    """Processes of ours that `parent` started, or that outlived it under this test's folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode().split("\0")
            status = (folder / "status").read_text()
        except OSError:
            continue
        if WORKER in command and f"PPid:\t{parent}\n" in status:
            found.append(int(folder.name))
    return found


def until(ready: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_a_worker_killed_in_the_middle_is_an_error(bundle: Bundle) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            profile(Request(bundle, ONNX, runs=1, cold_starts=0, sustained_s=60))
        except PlaceError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: workers_of(os.getpid()))
    os.kill(workers_of(os.getpid())[0], signal.SIGKILL)
    thread.join(60)
    assert [str(error) for error in errors]
    assert "was ended by SIGKILL" in str(errors[0])
    assert not workers_of(os.getpid())


def command(bundle: Bundle, *options: str) -> list[str]:
    start = [sys.executable, "-m", "phoneward", "profile", str(bundle.path), "--on", "host"]
    return [*start, "--engine", "onnxruntime", "--no-op-times", *options]


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_an_interrupt(
    bundle: Bundle, tmp_path: Path, number: signal.Signals
) -> None:
    report = tmp_path / "report.json"
    arguments = command(bundle, "--runs", "1", "--sustained", "120", "-o", str(report))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: workers_of(process.pid))
        workers = workers_of(process.pid)
        process.send_signal(number)
        process.communicate(timeout=60)
    until(lambda: not any(alive(worker) for worker in workers), 30)
    assert not report.exists()
    if number is signal.SIGKILL:
        # nobody can tidy up after that
        shutil.rmtree(next(Path(os.environ["TMPDIR"]).iterdir()))
    else:
        assert process.returncode == 2


def alive(number: int) -> bool:
    try:
        return WORKER in Path(f"/proc/{number}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return False


def test_no_room_is_an_error_and_leaves_nothing(bundle: Bundle, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash"]
    done = subprocess.run(
        [*limited, *command(bundle, "-o", str(report))], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stderr
    assert not report.exists()


def test_the_report_is_written_and_printed(bundle: Bundle, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = command(bundle, "--runs", "3", "--cold-starts", "1", "-o", str(report))
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "measured" in done.stdout
    assert len(result_of(read_report(report)).samples_ns) == 3
    missing = tmp_path / "nowhere" / "report.json"
    done = subprocess.run(command(bundle, "-o", str(missing)), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no such folder" in done.stderr


@pytest.mark.matrix  # one of twenty pairs may differ by more, and more of them on a busy machine
def test_two_profiles_differ_by_less_than_they_state(bundle: Bundle) -> None:
    request = Request(bundle, ONNX, runs=50, cold_starts=0, op_times=False)
    assert agree(result_of(profile(request)), result_of(profile(request)))


def test_agreement_can_fail() -> None:
    one = Measured(samples_ns=(100,) * 6, median_interval_ns=(95, 105))
    other = Measured(samples_ns=(120,) * 6, median_interval_ns=(90, 130))
    assert not agree(one, other)
    assert agree(one, one)


def test_the_profiler_costs_less_than_a_hundredth_of_a_frame() -> None:
    # of a frame of one millisecond; the least of many blocks is what no other process touched
    runs = 1000
    blocks = []
    for _ in range(50):
        started = time.perf_counter_ns()
        sample(lambda: None, runs)
        blocks.append((time.perf_counter_ns() - started) / runs)
    assert min(blocks) < MOST_COST * 1e6


def test_a_cost_is_seen() -> None:
    cost = cost_of(lambda: None, pairs=20)
    assert cost.low > MOST_COST


def test_the_interval_is_students() -> None:
    # spread 0: no room; twice the spread on the logarithmic scale: the root of it as an interval
    assert next_median([[100], [100], [100]]) in {(99, 100), (100, 100), (99, 101), (100, 101)}
    assert next_median([[100], [120]]) is None
    interval = next_median([[90], [100], [111.11]])
    assert interval is not None
    low, high = interval
    # by hand: logs 0, +-0.10536; t = 4.303, s = 0.10536, root of 4/3: half 0.5235
    assert low == pytest.approx(100 * 2.71828**-0.5235, abs=1.5)
    assert high == pytest.approx(100 * 2.71828**0.5235, abs=1.5)


def test_a_machine_that_changes_within_processes_widens_the_interval() -> None:
    calm = next_median([[100] * 10, [101] * 10, [99] * 10])
    moody = next_median([[80] * 5 + [100] + [120] * 5, [101] * 10, [99] * 10])
    assert calm is not None
    assert moody is not None
    assert moody[1] - moody[0] > 3 * (calm[1] - calm[0])


def test_steadiness_is_two_windows_that_agree() -> None:
    assert not is_steady([100] * 9)
    assert is_steady([500] * 5 + [100] * 5 + [102] * 5)
    assert not is_steady([100] * 5 + [104] * 5)


def test_warming_up_gives_up() -> None:
    durations = iter(range(1000))
    runs, steady = warm_up(lambda: time.sleep(0.004 * next(durations)))
    assert not steady
    assert runs >= 10


def test_windows_cover_the_run() -> None:
    windows = sustain(lambda: time.sleep(0.01), 1.1)
    assert [round(window.start_ns / 5e8) for window in windows] == [0, 1, 2]
    assert all(1e7 <= window.p50_ns <= window.p99_ns for window in windows)


def test_a_tracker_is_timed_with_a_full_memory_bank(tam_bundle: Bundle, tmp_path: Path) -> None:
    one = tam_bundle.manifest.artifacts[0]
    job = FramesJob(
        bundle=tam_bundle.path,
        engine="onnxruntime",
        format_name=one.format,
        precision=one.precision,
        threads=1,
        frames=2,
        spawned_ns=time.perf_counter_ns(),
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    tracked = run_worker(job, Tracked, scratch, "tracking")
    assert tracked.filled_slots == tracked.slots == tracked.warmup_runs == 2
    assert len(tracked.frames_ns) == 2
    calls = {name: len(durations) for name, durations in tracked.stages_ns.items()}
    assert calls == {"encode": 2, "prompt": 0, "propagate": 2, "memorize": 2}
    spent = sum(sum(durations) for durations in tracked.stages_ns.values())
    assert 0.5 * sum(tracked.frames_ns) < spent < sum(tracked.frames_ns)

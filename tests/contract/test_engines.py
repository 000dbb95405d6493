"""What every engine promises, proved with a real artifact of its format."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from phoneward.errors import EngineError, MissingExtra, TensorMismatch, UnknownName
from phoneward.runtime.engines import (
    ENGINES,
    engines_for,
    format_of,
    open_session,
    why_not,
)
from phoneward.spec import TensorSpec

if TYPE_CHECKING:
    from phoneward.runtime.engines.session import Session
    from tests.conftest import Sample

ROOT = Path(__file__).parents[2]
RUN_HERE = [name for name in ENGINES if why_not(name) is None]


@pytest.fixture(params=RUN_HERE)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", ENGINES)
def test_the_engine_is_under_test(name: str) -> None:
    if (reason := why_not(name)) is not None:
        pytest.skip(f"engine '{name}' is not tested here: {reason}")
    assert name in engines_for(format_of(name))


@pytest.fixture
def sample(engine: str, samples: dict[str, Sample]) -> Sample:
    return samples[format_of(engine)]


def opened(engine: str, sample: Sample, threads: int = 1) -> Session:
    return open_session(engine, sample.path, sample.inputs, sample.outputs, threads)


@pytest.fixture
def session(engine: str, sample: Sample) -> Iterator[Session]:
    with opened(engine, sample) as session:
        yield session


def test_the_numbers_are_pytorchs(session: Session, sample: Sample) -> None:
    answers = session(sample.tensors)
    assert list(answers) == [spec.name for spec in sample.outputs]
    for name, expected in sample.expected.items():
        assert answers[name].dtype == np.float32
        np.testing.assert_allclose(answers[name], expected, atol=1e-5)


def test_a_session_knows_what_it_was_opened_with(session: Session, sample: Sample) -> None:
    assert (session.inputs, session.outputs) == (sample.inputs, sample.outputs)
    assert session.threads == 1


def test_results_outlive_later_calls_and_the_session(engine: str, sample: Sample) -> None:
    with opened(engine, sample) as session:
        first = session(sample.tensors)
        kept = {name: array.copy() for name, array in first.items()}
        changed = {name: array * 3 for name, array in sample.tensors.items()}
        second = session(changed)
        assert not np.array_equal(second["zz_logits"], kept["zz_logits"])
        again = session(sample.tensors)
    for name, array in kept.items():
        np.testing.assert_array_equal(first[name], array)
        np.testing.assert_array_equal(again[name], array)
        first[name][...] = 0  # the caller's own, to write to


def test_inputs_are_left_alone_and_may_be_read_only_views(session: Session, sample: Sample) -> None:
    wide = np.repeat(sample.tensors["image"], 2, axis=-1)
    view = wide[..., ::2]
    view.flags.writeable = False
    row = sample.tensors["bias"].copy()
    row.flags.writeable = False
    answers = session({"bias": row, "image": view})
    np.testing.assert_allclose(answers["zz_logits"], sample.expected["zz_logits"], atol=1e-5)
    np.testing.assert_array_equal(view, sample.tensors["image"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {**t, "image": t["image"][:, :, :16]}, r"\(1, 3, 32, 32\), got .*16"),
        (lambda t: {**t, "image": t["image"][0]}, r"got float32 of shape \(3, 32, 32\)"),
        (lambda t: {**t, "image": t["image"].astype(np.float64)}, "got float64"),
        (lambda t: {**t, "image": t["image"].astype(np.uint8)}, "got uint8"),
        (lambda t: {"image": t["image"]}, "image, bias; got image"),
        (lambda t: {**t, "other": t["bias"]}, "image, bias; got .*other"),
        (lambda t: {"Image": t["image"], "bias": t["bias"]}, "got Image, bias"),
        (lambda t: {}, "takes the tensors image, bias"),
    ],
    ids=["shape", "rank", "float64", "uint8", "missing", "extra", "case", "none"],
)
def test_other_tensors_are_refused(
    session: Session, sample: Sample, change: object, message: str
) -> None:
    assert callable(change)
    with pytest.raises(TensorMismatch, match=message):
        session(change(sample.tensors))
    answers = session(sample.tensors)  # and the session still works
    np.testing.assert_allclose(answers["zz_logits"], sample.expected["zz_logits"], atol=1e-5)


def test_a_closed_session_refuses_to_run(engine: str, sample: Sample) -> None:
    session = opened(engine, sample)
    session(sample.tensors)
    session.close()
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session(sample.tensors)


def copied(sample: Sample, place: Path) -> Path:
    if sample.path.is_dir():
        return Path(shutil.copytree(sample.path, place))
    return Path(shutil.copy(sample.path, place))


def body(artifact: Path) -> Path:
    """The file of an artifact that holds its graph."""
    package = artifact / "Data" / "com.apple.CoreML" / "model.mlmodel"
    return package if artifact.is_dir() else artifact


@pytest.mark.parametrize("kept", [0, 3, 8, 64, 0.25, 0.5, 0.9, -1])
def test_a_truncated_file_is_an_error(
    engine: str, sample: Sample, kept: float, tmp_path: Path
) -> None:
    file = copied(sample, tmp_path / "cut")
    content = body(file).read_bytes()
    body(file).write_bytes(content[: int(kept * len(content)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(EngineError, match="cut"):
        open_session(engine, file, sample.inputs, sample.outputs)


@pytest.mark.parametrize("seed", range(3))
def test_garbage_is_an_error(engine: str, sample: Sample, seed: int, tmp_path: Path) -> None:
    file = copied(sample, tmp_path / "garbage")
    body(file).write_bytes(np.random.default_rng(seed).bytes(body(file).stat().st_size))
    with pytest.raises(EngineError, match="garbage"):
        open_session(engine, file, sample.inputs, sample.outputs)


def test_a_file_of_another_format_is_an_error(
    engine: str, samples: dict[str, Sample], sample: Sample
) -> None:
    others = [other for name, other in samples.items() if name != format_of(engine)]
    assert others
    for other in others:
        with pytest.raises(EngineError):
            open_session(engine, other.path, sample.inputs, sample.outputs)


def test_no_file_and_a_folder_are_errors(engine: str, sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such file"):
        open_session(engine, tmp_path / "absent", sample.inputs, sample.outputs)
    with pytest.raises(EngineError):
        open_session(engine, tmp_path, sample.inputs, sample.outputs)


def test_a_manifest_that_lies_about_outputs_is_an_error(engine: str, sample: Sample) -> None:
    wrong = (TensorSpec(name="zz_logits", shape=(1, 7)), *sample.outputs[1:])
    with (
        open_session(engine, sample.path, sample.inputs, wrong) as session,
        pytest.raises(EngineError, match=r"manifest.*\(1, 7\)"),
    ):
        session(sample.tensors)


def test_a_manifest_that_lies_about_inputs_is_an_error(engine: str, sample: Sample) -> None:
    wrong = (TensorSpec(name="image", shape=(1, 3, 32, 40)), sample.inputs[1])
    image = np.zeros((1, 3, 32, 40), np.float32)
    with (
        open_session(engine, sample.path, wrong, sample.outputs) as session,
        pytest.raises(EngineError),
    ):
        session({**sample.tensors, "image": image})


def test_a_manifest_with_fewer_tensors_is_an_error(engine: str, sample: Sample) -> None:
    with pytest.raises(EngineError):  # noqa: SIM117 (some engines notice when opening)
        with open_session(engine, sample.path, sample.inputs[:1], sample.outputs) as session:
            session({"image": sample.tensors["image"]})


def test_two_sessions_live_side_by_side(engine: str, sample: Sample) -> None:
    with opened(engine, sample) as one, opened(engine, sample) as two:
        other = {name: array * 2 for name, array in sample.tensors.items()}
        alone = two(other)
        for _ in range(3):
            np.testing.assert_array_equal(two(other)["map"], alone["map"])
            answers = one(sample.tensors)
            np.testing.assert_allclose(answers["map"], sample.expected["map"], atol=1e-5)
        one.close()
        np.testing.assert_array_equal(two(other)["map"], alone["map"])


def test_a_file_may_go_once_it_is_open(engine: str, sample: Sample, tmp_path: Path) -> None:
    file = copied(sample, tmp_path / "short-lived")
    with open_session(engine, file, sample.inputs, sample.outputs) as session:
        shutil.rmtree(file) if file.is_dir() else file.unlink()
        answers = session(sample.tensors)
    np.testing.assert_allclose(answers["zz_logits"], sample.expected["zz_logits"], atol=1e-5)


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_is_an_error(engine: str, sample: Sample, threads: int) -> None:
    with pytest.raises(EngineError, match="threads must be at least 1"):
        opened(engine, sample, threads)


COUNT = """
import os, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import numpy as np
from phoneward.runtime.engines import open_session
from phoneward.spec import TensorSpec
engine, path, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
inputs = [TensorSpec.model_validate_json(text) for text in sys.argv[4].split("\\n")]
outputs = [TensorSpec.model_validate_json(text) for text in sys.argv[5].split("\\n")]
tensors = {spec.name: np.ones(spec.shape, np.float32) for spec in inputs}
def living():
    return os.listdir("/proc/self/task")
with open_session(engine, path, inputs, outputs, 1) as session:
    session(tensors)
    before = len(living())
with open_session(engine, path, inputs, outputs, threads) as session:
    session(tensors)
    print(len(living()) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.matrix), 4])
def test_threads_are_honoured(engine: str, sample: Sample, threads: int) -> None:
    """A pool of n threads is the caller's and n - 1 of its own, in a process of its own."""
    specs = [
        "\n".join(spec.model_dump_json() for spec in side)
        for side in (sample.inputs, sample.outputs)
    ]
    result = subprocess.run(
        [sys.executable, "-c", COUNT, engine, str(sample.path), str(threads), *specs],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stdout.split()[-1]) == threads - 1


def test_executorch_refuses_a_second_number_of_threads(samples: dict[str, Sample]) -> None:
    if (reason := why_not("executorch")) is not None:
        pytest.skip(reason)
    sample = samples["executorch"]
    with opened("executorch", sample, 1), pytest.raises(EngineError, match="one thread pool"):
        opened("executorch", sample, 3)
    with opened("executorch", sample, 3) as session:
        session(sample.tensors)
    lost = opened("executorch", sample, 1)
    del lost
    with opened("executorch", sample, 2) as session:
        session(sample.tensors)


def test_core_ml_says_where_it_runs(tmp_path: Path) -> None:
    if sys.platform == "darwin":
        pytest.skip("it runs here")
    assert engines_for("coreml") == ("mil",)
    with pytest.raises(EngineError, match="only on macOS"):
        open_session("coreml", tmp_path, (), ())


def test_an_unknown_engine_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    for ask in (why_not, format_of, lambda name: open_session(name, tmp_path, (), ())):
        with pytest.raises(UnknownName, match="litert, onnxruntime, coreml, executorch, mil"):
            ask("tensorrt")
    assert engines_for("tensorrt") == ()


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "coreml"])
def test_an_absent_package_is_answered_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    extra = ENGINES.entry(name).extra
    assert f"pip install 'phoneward[{extra}]'" in (why_not(name) or "")
    assert name not in engines_for(format_of(name))
    with pytest.raises(MissingExtra, match=rf"phoneward\[{extra}\]"):
        open_session(name, tmp_path, (), ())


def test_every_engine_reads_one_format_and_its_extra_exists() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in ENGINES:
        assert format_of(name) in {"tflite", "executorch", "onnx", "coreml"}
        assert ENGINES.entry(name).extra in extras["optional-dependencies"]

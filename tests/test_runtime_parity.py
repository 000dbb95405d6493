"""The gate's figures are right, and nothing passes it by accident."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from phoneward.bundle import Bundle, Parity
from phoneward.errors import ArtifactChanged, BundleError
from phoneward.names import ParityStatus, Precision
from phoneward.runtime.engines import engines_for, open_session
from phoneward.runtime.parity import (
    THRESHOLDS,
    Reference,
    check_artifact,
    check_bundle,
    compare,
    judge,
    top1_agreement,
)
from phoneward.spec import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.bundle import Artifact

ANY = st.floats(-(2.0**99), 2.0**99, width=32)
SOME = st.floats(-100, 100, width=32)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    shape = draw(array_shapes(min_dims=2, max_dims=4, max_side=5))
    return draw(arrays(np.float32, shape, elements=ANY)), draw(
        arrays(np.float32, shape, elements=ANY)
    )


@given(pairs())
def test_figures_equal_a_plain_calculation(
    pair: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    expected, got = pair
    truth, answers = expected.ravel().tolist(), got.ravel().tolist()
    errors = [abs(a - b) for a, b in zip(answers, truth, strict=True)]
    figures = compare("x", expected, got)
    assert figures.max_abs_error == max(errors)
    relative, size = [], len(truth) // len(expected)
    for start in range(0, len(truth), size):
        row = truth[start : start + size]
        span = max(row) - min(row) or max(map(abs, row if size > 1 else truth)) or 1
        relative.append(max(errors[start : start + size]) / span)
    assert figures.relative_error == pytest.approx(max(relative))
    signal, noise = sum(t * t for t in truth), sum(e * e for e in errors)
    if noise == 0:
        assert figures.snr_db is None
    elif signal > 1e-300:
        assert figures.snr_db == pytest.approx(10 * np.log10(signal / noise), abs=1e-6)
    assert np.isfinite([figures.max_abs_error, figures.relative_error, figures.snr_db or 0]).all()


@given(arrays(np.float32, (3, 1, 4), elements=ANY))
def test_equal_arrays_have_no_error(values: NDArray[np.float32]) -> None:
    figures = compare("x", values, values.copy())
    assert (figures.max_abs_error, figures.relative_error, figures.snr_db) == (0, 0, None)


@pytest.mark.parametrize(
    ("constant", "error", "relative"),
    [(4.0, 0.0, 0.0), (4.0, 1.0, 0.25), (-4.0, 1.0, 0.25), (0.0, 0.0, 0.0), (0.0, 3.0, 3.0)],
)
def test_a_constant_answer_is_measured_by_its_magnitude(
    constant: float, error: float, relative: float
) -> None:
    expected = np.full((2, 1, 3), constant, np.float32)
    figures = compare("x", expected, expected + np.float32(error))
    assert (figures.max_abs_error, figures.relative_error) == (error, relative)


def test_a_score_near_zero_is_measured_by_the_others() -> None:
    expected = np.array([[[5.0]], [[0.01]], [[-10.0]]])
    got = expected + np.array([[[0.0]], [[0.02]], [[0.0]]])
    assert compare("score", expected, got).relative_error == pytest.approx(0.002)


def test_a_loud_sample_does_not_excuse_a_quiet_one() -> None:
    expected = np.stack([np.linspace(-100, 100, 50), np.linspace(-1, 1, 50)])
    got = expected.copy()
    got[1] = got[1, ::-1]
    assert compare("x", expected, got).relative_error == pytest.approx(1)


def test_what_cannot_be_compared_is_refused() -> None:
    one = np.ones((2, 1, 3), np.float32)
    for got in (one[:1], one[:, 0], np.ones((2, 3, 1), np.float32)):
        with pytest.raises(ValueError, match="cannot compare shapes"):
            compare("x", one, got)
    with pytest.raises(ValueError, match="cannot compare shapes"):
        compare("x", one[:0], one[:0])
    with pytest.raises(ValueError, match="not finite"):
        compare("x", one, one * np.float32("nan"))


@given(
    pair=st.sampled_from([(4, 1, 5), (2, 3, 5)]).flatmap(
        lambda shape: st.tuples(
            arrays(np.float32, shape, elements=SOME), arrays(np.float32, shape, elements=SOME)
        )
    ),
    tie=st.sampled_from([1e-6, 1e-3]),
)
def test_top1_agreement_equals_a_plain_calculation(
    pair: tuple[NDArray[np.float32], NDArray[np.float32]], tie: float
) -> None:
    expected, got = (scores.reshape(-1, 5).tolist() for scores in pair)
    agreed = 0
    for truth, answer in zip(expected, got, strict=True):
        lost = max(truth) - truth[answer.index(max(answer))]
        agreed += lost <= tie * (max(truth) - min(truth))
    assert top1_agreement(*pair, tie) == agreed / len(expected)


@given(arrays(np.float32, (4, 1, 5), elements=SOME))
def test_top1_agrees_with_itself(values: NDArray[np.float32]) -> None:
    assert top1_agreement(values, values, 1e-6) == 1


def test_near_ties_agree_and_no_more() -> None:
    expected = np.array([[[0.0, 1.0, 1.0 - 5e-7]]])
    assert top1_agreement(expected, np.array([[[0.0, 0.0, 1.0]]]), 1e-6) == 1
    expected[0, 0, 2] = 1.0 - 5e-6
    assert top1_agreement(expected, np.array([[[0.0, 0.0, 1.0]]]), 1e-6) == 0


def test_thresholds_are_those_that_were_agreed() -> None:
    assert set(THRESHOLDS) == set(Precision)
    limits = {p: (t.relative_error, t.top1_agreement) for p, t in THRESHOLDS.items()}
    assert limits == {
        Precision.FP32: (1e-4, 1.0),
        Precision.FP16: (2e-2, 1.0),
        Precision.INT8: (1e-1, 1.0),
    }


LOGITS = np.random.default_rng(0).normal(size=(4, 1, 10)).astype(np.float32)
REAL = np.array([True, True, True, False])


def reference(
    logits: NDArray[Any] = LOGITS, real: NDArray[Any] = REAL, **others: NDArray[Any]
) -> Reference:
    return Reference({"classify/output/logits": logits, "classify/real": real, **others})


@pytest.fixture
def tflite(bundle: Bundle) -> Artifact:
    return bundle.manifest.artifacts[0]


def verdict(artifact: Artifact, answers: NDArray[Any], **changes: NDArray[Any]) -> Parity:
    parity = judge(artifact, reference(**changes), {"logits": answers}, "engine")
    stored = Parity.model_validate_json(parity.model_dump_json())
    assert stored == parity  # a manifest can hold every verdict
    json.dumps(parity.model_dump(mode="json"), allow_nan=False)
    return parity


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize(("share", "status"), [(0.9, "ok"), (1.1, "failed")])
def test_the_relative_error_decides(
    tflite: Artifact, precision: Precision, share: float, status: str
) -> None:
    answers = LOGITS.astype(np.float64)
    span = float(np.ptp(LOGITS[3]))
    answers[3, 0, 4] += share * THRESHOLDS[precision].relative_error * span  # noise, no photograph
    parity = verdict(tflite.model_copy(update={"precision": precision}), answers)
    assert parity.status.value == status
    assert (parity.engine, parity.images, parity.top1_agreement) == ("engine", 3, 1.0)
    assert parity.outputs[0].relative_error == pytest.approx(
        share * THRESHOLDS[precision].relative_error, rel=1e-3
    )
    assert (parity.reason is None) == (status == "ok")


def test_another_top_class_on_a_photograph_fails(tflite: Artifact) -> None:
    logits = LOGITS.copy()
    logits[:, 0, :2] = 5.0, 4.99
    answers = logits.copy()
    answers[:, 0, :2] = 4.99, 5.0
    fp16 = tflite.model_copy(update={"precision": Precision.FP16})
    parity = verdict(fp16, answers, logits=logits)
    assert parity.outputs[0].relative_error < 2e-2
    assert (parity.status, parity.top1_agreement) == (ParityStatus.FAILED, 0)
    assert parity.reason == "top-1 agreement 0% on 3 photographs"
    answers[:3] = logits[:3]  # on noise it may differ
    assert verdict(fp16, answers, logits=logits).status is ParityStatus.OK


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0), (3, 0, 9)])
def test_what_is_not_finite_never_passes(
    tflite: Artifact, precision: Precision, value: float, place: tuple[int, int, int]
) -> None:
    tflite = tflite.model_copy(update={"precision": precision})
    broken = LOGITS.copy()
    broken[place] = value
    for answers, logits, whose in (
        (broken, LOGITS, "the artifact"),
        (LOGITS, broken, "PyTorch"),
        (broken, broken, "PyTorch"),
    ):
        parity = verdict(tflite, answers, logits=logits)
        assert parity.status is ParityStatus.FAILED
        assert parity.reason == f"logits: not all values of {whose} are finite"
        assert parity.outputs == ()


def test_images_of_a_batch_are_judged_one_by_one(tflite: Artifact) -> None:
    """Two images a sample: over all 20 scores only the surest image would be looked at."""
    logits = np.tile(LOGITS[:, :1], (1, 2, 1))
    logits[:, 0, :2], logits[:, 1, :2] = (5.0, 4.99), (90.0, -90.0)
    answers = logits.copy()
    answers[1, 0, :2] = 4.99, 5.0
    spec = TensorSpec(name="logits", shape=(2, 10), layout="NC")
    batched = tflite.model_copy(update={"precision": Precision.FP16, "outputs": (spec,)})
    parity = verdict(batched, answers, logits=logits)
    assert (parity.images, parity.top1_agreement) == (6, pytest.approx(5 / 6))
    assert parity.reason == "top-1 agreement 83% on 6 photographs"
    assert verdict(batched, logits, logits=logits).status is ParityStatus.OK


def test_without_photographs_nothing_is_proved(tflite: Artifact) -> None:
    parity = verdict(tflite, LOGITS, real=np.zeros(4, np.bool_))
    assert (parity.status, parity.top1_agreement) == (ParityStatus.FAILED, None)
    assert "no photographs" in (parity.reason or "")


def test_the_worst_of_several_outputs_decides(tflite: Artifact) -> None:
    names = ("logits", "early")
    specs = tuple(TensorSpec(name=name, shape=(1, 10), layout="NC") for name in names)
    artifact = tflite.model_copy(update={"outputs": specs})
    swapped = LOGITS[..., ::-1]
    for wrong in names:
        answers = {name: swapped if name == wrong else LOGITS for name in names}
        parity = judge(artifact, reference(**{"classify/output/early": LOGITS}), answers, "e")
        assert parity.status is ParityStatus.FAILED
        assert parity.top1_agreement == 0
        assert [o.output for o in parity.outputs if o.relative_error > 0] == [wrong]


@pytest.mark.parametrize(
    "changes",
    [
        {"logits": LOGITS[:3]},
        {"logits": LOGITS[:, 0]},
        {"logits": LOGITS.astype(str)},
        {"real": REAL.astype(np.uint8)},
        {"real": REAL[None]},
        {"real": REAL[:0], "logits": LOGITS[:0]},
    ],
    ids=["fewer", "rank", "text", "real-dtype", "real-rank", "none"],
)
def test_a_reference_that_does_not_fit_is_an_error(
    tflite: Artifact, changes: dict[str, NDArray[Any]]
) -> None:
    with pytest.raises(BundleError, match="reference file"):
        judge(tflite, reference(**changes), {"logits": LOGITS}, "engine")
    with pytest.raises(BundleError, match="no 'classify/real'"):
        judge(tflite, Reference({}), {"logits": LOGITS}, "engine")


def test_images_follow_the_layout_of_the_artifact(bundle: Bundle) -> None:
    whole = Reference.load(bundle.path / "reference.npz")
    last, first = (a.inputs[0] for a in bundle.manifest.artifacts[:2])
    assert (last.layout, first.layout) == ("NHWC", "NCHW")
    channels_last = whole.inputs("classify", last)
    assert (channels_last.shape, channels_last.dtype) == ((7, 1, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(
        channels_last.transpose(0, 1, 4, 2, 3), whole.inputs("classify", first)
    )


@pytest.mark.parametrize("kept", [0, 10, 2000, -5])
def test_a_damaged_reference_is_an_error(bundle: Bundle, kept: int, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes((bundle.path / "reference.npz").read_bytes()[:kept])
    with pytest.raises(BundleError, match=r"x.npz: not a readable reference file"):
        Reference.load(tmp_path / "x.npz")


def test_a_reference_holds_arrays_and_never_code(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", LOGITS)
    np.savez(tmp_path / "x.npz", x=np.array([{}], dtype=object))
    for name in ("x.npy", "x.npz", "absent.npz"):
        with pytest.raises(BundleError, match="not a readable reference file"):
            Reference.load(tmp_path / name)


def test_every_artifact_of_a_bundle_is_run(bundle: Bundle) -> None:
    steps: list[tuple[str, int, int]] = []
    checked = list(check_bundle(bundle, progress=lambda *step: steps.append(step)))
    assert [a.format for a, _ in checked] == ["tflite", "executorch", "onnx", "coreml", "none"]
    assert [step[1:] for step in steps] == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    engines = "litert", "executorch", "onnxruntime", engines_for("coreml")[0]
    for (_, parity), engine in zip(checked, engines, strict=False):
        assert (parity.status, parity.engine) == (ParityStatus.OK, engine)
        assert (parity.top1_agreement, parity.images, parity.reason) == (1.0, 5, None)
        assert parity.outputs[0].relative_error <= 1e-4
    nowhere = checked[-1][1]
    assert (nowhere.status, nowhere.engine) == (ParityStatus.NOT_EXECUTED, None)
    assert nowhere.reason == "no engine for none here"


def test_the_figures_are_those_of_the_engines_own_answers(bundle: Bundle) -> None:
    artifact = bundle.manifest.artifacts[2]
    whole = Reference.load(bundle.path / "reference.npz")
    parity = check_artifact(bundle.file(artifact), artifact, whole)
    with open_session(
        "onnxruntime", bundle.file(artifact), artifact.inputs, artifact.outputs
    ) as session:
        images = whole.inputs("classify", artifact.inputs[0])
        answers = np.stack([session({"image": image})["logits"] for image in images])
    truth = whole.outputs("classify", artifact.outputs[0])
    assert parity.outputs[0].max_abs_error == float(
        np.abs(answers.astype(np.float64) - truth.astype(np.float64)).max()
    )


def test_an_artifact_of_another_network_fails(bundle: Bundle, tmp_path: Path) -> None:
    whole = Reference.load(bundle.path / "reference.npz")
    arrays_of = dict(whole.arrays)
    arrays_of["classify/output/logits"] = arrays_of["classify/output/logits"][..., ::-1]
    for artifact in bundle.manifest.artifacts[:4]:
        parity = check_artifact(bundle.file(artifact), artifact, Reference(arrays_of))
        assert parity.status is ParityStatus.FAILED
        assert "relative error" in (parity.reason or "")


def test_an_artifact_that_its_engine_refuses_fails(bundle: Bundle, tmp_path: Path) -> None:
    whole = Reference.load(bundle.path / "reference.npz")
    (tmp_path / "rubbish").write_bytes(b"rubbish" * 100)
    for artifact in bundle.manifest.artifacts[:4]:
        parity = check_artifact(tmp_path / "rubbish", artifact, whole)
        assert parity.status is ParityStatus.FAILED
        assert parity.engine is not None
        assert "rubbish" in (parity.reason or "")
        lied = artifact.model_copy(update={"outputs": (TensorSpec(name="logits", shape=(1, 9)),)})
        parity = check_artifact(bundle.file(artifact), lied, whole)
        assert parity.status is ParityStatus.FAILED
        assert "manifest" in (parity.reason or "")


@pytest.mark.parametrize("name", ["classify.onnx", "reference.npz", "labels.txt", "classify.none"])
def test_checksums_come_before_any_engine(bundle: Bundle, name: str, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "copy")
    file = tmp_path / "copy" / name
    file.write_bytes(file.read_bytes() + b"\0")
    seen: list[object] = []
    with pytest.raises(ArtifactChanged, match=name):
        seen.extend(check_bundle(Bundle.open(tmp_path / "copy")))
    assert not seen
    file.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        list(check_bundle(Bundle.open(tmp_path / "copy")))

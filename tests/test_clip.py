"""A tracker is held against PyTorch as a whole; what drifts or was tampered with is found."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from phoneward.apps.cli import verify
from phoneward.apps.cli.artifacts import print_clips, show_failure
from phoneward.bundle import MANIFEST, Bundle, ClipParity, sha256_of
from phoneward.errors import BundleError
from phoneward.export.clip import FRAMES, make_frames
from phoneward.export.models.family import Knobs
from phoneward.export.pipeline import GateFailed, export_bundle
from phoneward.export.request import make_request
from phoneward.names import ParityStatus, Precision
from phoneward.runtime import clip as clips
from phoneward.runtime.clip import (
    CLIP_THRESHOLDS,
    Clip,
    ClipThresholds,
    basis_of,
    check_clip,
    check_clips,
    drift,
    judge,
    logit_difference,
    mask_ious,
    track,
)
from phoneward.runtime.engines import open_session
from phoneward.runtime.parity import Reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phoneward.runtime.engines.session import Session
    from phoneward.spec import TensorSpec

LOGITS = np.random.default_rng(3).normal(size=(6, 8, 8)).astype(np.float32)
SOME = arrays(np.float32, (4, 5, 5), elements=st.floats(-9, 9, width=32))


def verdict(basis: str, precision: Precision = Precision.FP32) -> ClipParity:
    status = ParityStatus.NOT_EXECUTED
    return ClipParity(format="onnx", precision=precision, status=status, basis=basis)  # type: ignore[arg-type]


@given(SOME, SOME)
def test_figures_equal_a_plain_calculation(
    expected: NDArray[np.float32], got: NDArray[np.float32]
) -> None:
    for one, other, iou in zip(expected, got, mask_ious(expected, got), strict=True):
        a, b = (set(zip(*np.nonzero(logits > 0), strict=True)) for logits in (one, other))
        assert iou == (len(a & b) / len(a | b) if a | b else 1)
    shares = []
    for one, other in zip(expected.astype(float).tolist(), got.astype(float).tolist(), strict=True):
        truth, answer = list(chain(*one)), list(chain(*other))
        span = max(truth) - min(truth) or max(map(abs, truth)) or 1
        shares.append(max(abs(x - y) for x, y in zip(truth, answer, strict=True)) / span)
    assert logit_difference(expected, got) == pytest.approx(max(shares))


def test_drift_is_the_last_third_minus_the_first() -> None:
    assert drift([1.0, 1.0, 0.9, 0.9, 0.5, 0.7]) == pytest.approx(0.6 - 1.0)
    assert drift([0.5]) == 0
    assert drift([0.5, 0.75]) == 0.25


def test_masks_are_judged_unless_they_say_nothing() -> None:
    assert basis_of(LOGITS, random_weights=False) == "masks"
    assert basis_of(LOGITS, random_weights=True) == "logits"
    assert basis_of(-np.abs(LOGITS), random_weights=False) == "logits"


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize(("share", "status"), [(0.9, "ok"), (1.1, "failed")])
def test_logits_are_held_to_their_range(precision: Precision, share: float, status: str) -> None:
    got = LOGITS.astype(np.float64)
    limit = CLIP_THRESHOLDS[precision].relative_error
    got[4, 2, 2] += share * limit * np.ptp(LOGITS[4])
    judged = judge(verdict("logits", precision), LOGITS, got)  # type: ignore[arg-type]
    assert judged.status.value == status
    assert judged.relative_error == pytest.approx(share * limit, rel=1e-3)
    assert (judged.reason is None) == (status == "ok")


def test_one_bad_frame_fails_the_masks() -> None:
    got = LOGITS.copy()
    got[5] = -got[5]
    judged = judge(verdict("masks", Precision.FP16), LOGITS, got)
    assert (judged.status, judged.min_iou) == (ParityStatus.FAILED, 0)
    assert judged.ious == (1, 1, 1, 1, 1, 0)
    assert judged.drift == -0.5
    assert judged.reason == "mask IoU 0.000 on frame 5 under 0.95"
    near = LOGITS * np.float32(3)  # other logits, the same masks
    assert judge(verdict("masks", Precision.FP16), LOGITS, near).status is ParityStatus.OK
    assert judge(verdict("logits", Precision.FP16), LOGITS, near).status is ParityStatus.FAILED


def test_single_precision_is_held_to_logits_where_masks_agree() -> None:
    close = judge(verdict("masks"), LOGITS, LOGITS * np.float32(1 + 1e-5))
    assert (close.status, close.reason) == (ParityStatus.OK, None)
    near = judge(verdict("masks"), LOGITS, LOGITS * np.float32(1.01))
    assert (near.status, near.min_iou) == (ParityStatus.FAILED, 1)
    assert near.reason is not None
    assert near.reason.startswith("mask logits: relative error")
    both = judge(verdict("masks"), LOGITS, -LOGITS)
    assert both.reason is not None
    assert both.reason.startswith("mask IoU 0.000 on frame 0 under 0.99; mask logits")


def test_thresholds_are_those_that_were_agreed() -> None:
    limits = {p: (t.min_iou, t.relative_error, t.always) for p, t in CLIP_THRESHOLDS.items()}
    assert limits == {
        Precision.FP32: (0.99, 1e-3, True),
        Precision.FP16: (0.95, 1e-2, False),
        Precision.INT8: (0.92, 5e-2, False),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": np.zeros((6, 9, 9), np.uint8)},
        {"frames": np.zeros((6, 9, 9, 3), np.float32)},
        {"frames": np.zeros((5, 9, 9, 3), np.uint8)},
        {"frames": np.zeros((0, 9, 9, 3), np.uint8), "logits": LOGITS[:0]},
        {"logits": LOGITS * np.float32("nan")},
        {"logits": LOGITS[0]},
        {"point": np.zeros((1, 2), np.float32)},
    ],
)
def test_a_clip_that_does_not_fit_together_is_an_error(changes: dict[str, NDArray[Any]]) -> None:
    whole = {
        "frames": np.zeros((6, 9, 9, 3), np.uint8),
        "point": np.zeros(2, np.float32),
        "logits": LOGITS,
    }
    keyed = {f"clip/{name}": array for name, array in (whole | changes).items()}
    with pytest.raises(BundleError, match="clip of the reference file"):
        Clip.of(Reference(keyed))
    with pytest.raises(BundleError, match="has no 'clip/point'"):
        Clip.of(Reference({f"clip/{k}": v for k, v in whole.items() if k != "point"}))


def test_the_clip_is_of_a_thing_that_moves_over_ground() -> None:
    frames = make_frames()
    assert (frames.shape, frames.dtype) == ((FRAMES, 192, 192, 3), np.uint8)
    assert FRAMES >= 12
    moved = [(frames[i] != frames[i + 1]).any(-1) for i in range(FRAMES - 1)]
    assert all(0.1 < share.mean() < 0.4 for share in moved)
    rows, columns = np.nonzero((frames[0] != frames[-1]).any(-1))
    assert rows.min() > 0
    assert columns.min() > 0
    assert max(rows.max(), columns.max()) < 191


def test_an_exported_tracker_follows_as_pytorch_does(tam_bundle: Bundle) -> None:
    (stated,) = tam_bundle.manifest.clips
    assert (stated.format, stated.precision, stated.engine) == ("onnx", "fp32", "onnxruntime")
    assert (stated.status, stated.basis, stated.frames) == (ParityStatus.OK, "logits", FRAMES)
    assert stated.relative_error is not None
    assert 0 < stated.relative_error < 1e-3
    assert stated.min_iou == min(stated.ious)
    assert stated.min_iou > 0.99
    (again,) = check_clips(tam_bundle, threads=2)
    assert again.relative_error == pytest.approx(stated.relative_error, rel=0.5)
    assert again.status is ParityStatus.OK


@pytest.fixture(scope="module")
def short(tam_bundle: Bundle) -> Clip:
    whole = Clip.of(Reference.load(tam_bundle.path / tam_bundle.manifest.reference))
    return Clip(whole.frames[:5], whole.point, whole.logits[:5])


@pytest.fixture
def copy(tam_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A bundle whose files may be replaced, not written to."""
    shutil.copytree(tam_bundle.path, tmp_path / "bundle", copy_function=os.link)
    return Bundle.open(tmp_path / "bundle")


def play(bundle: Bundle, clip: Clip) -> ClipParity:
    return check_clip(list(bundle.manifest.artifacts), bundle.path, clip, basis="logits", threads=2)


def test_what_is_remembered_wrongly_is_found(copy: Bundle, short: Clip) -> None:
    """A memory that is slightly off: the prompted frame is right, those after it are not."""
    assert play(copy, short).status is ParityStatus.OK
    (artifact,) = (a for a in copy.manifest.artifacts if a.stage == "memorize")
    path = copy.file(artifact)
    model = onnx.load(path)
    (output,) = model.graph.output
    node = next(node for node in model.graph.node if output.name in node.output)
    node.output[:] = ["right" if name == output.name else name for name in node.output]
    factor = onnx.numpy_helper.from_array(np.float32(1.05).reshape(()), "factor")
    model.graph.initializer.append(factor)
    model.graph.node.append(onnx.helper.make_node("Mul", ["right", "factor"], [output.name]))
    path.unlink()
    onnx.save(model, path)
    found = play(copy, short)
    assert found.status is ParityStatus.FAILED
    assert "mask logits: relative error" in (found.reason or "")


@dataclass(frozen=True)
class Spoiled:
    """A session that is told something else than its host says."""

    session: Session
    changes: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    tensor: str

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.session.outputs

    def __call__(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self.session({**tensors, self.tensor: self.changes(tensors[self.tensor])})


@pytest.mark.parametrize(
    ("stage", "tensor", "changes"),
    [
        ("propagate", "memory_age", lambda age: np.where(age > 0, age + 1, age)),
        ("memorize", "prompted", np.zeros_like),
    ],
    ids=["memories one frame too old", "the prompted mask is not certain"],
)
def test_a_small_mistake_is_larger_than_half_precisions(
    tam_bundle: Bundle,
    short: Clip,
    stage: str,
    tensor: str,
    changes: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> None:
    with ExitStack() as opened:
        sessions = {
            a.stage: opened.enter_context(
                open_session("onnxruntime", tam_bundle.file(a), a.inputs, a.outputs, 2)
            )
            for a in tam_bundle.manifest.artifacts
        }
        wrong = {**sessions, stage: Spoiled(sessions[stage], changes, tensor)}
        logits = track(wrong, short.frames, short.point)
    judged = judge(verdict("logits", Precision.FP16), short.logits, logits)
    assert judged.status is ParityStatus.FAILED


def test_other_answers_of_pytorch_are_found_by_verify(
    copy: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = copy.path / copy.manifest.reference
    with np.load(reference) as archive:
        stored = dict(archive)
    stored["clip/logits"][7] *= 1.01
    reference.unlink()
    np.savez(reference, **stored)
    record = json.loads((copy.path / MANIFEST).read_text())
    record["reference_sha256"] = sha256_of(reference)
    (copy.path / MANIFEST).unlink()
    (copy.path / MANIFEST).write_text(json.dumps(record))
    assert verify.command(copy.path, threads=2, json_output=True) == 1
    report = json.loads(capsys.readouterr().out)
    assert {a["parity"]["status"] for a in report["artifacts"]} == {"ok"}
    (clip,) = report["clips"]
    assert clip["status"] == "failed"
    assert clip["relative_error"] == pytest.approx(0.01, rel=0.5)


def test_what_no_engine_runs_is_not_executed(tam_bundle: Bundle, short: Clip) -> None:
    unknown = [a.model_copy(update={"format": "none"}) for a in tam_bundle.manifest.artifacts]
    found = check_clip(unknown, tam_bundle.path, short, basis="logits")
    assert (found.status, found.engine, found.ious) == (ParityStatus.NOT_EXECUTED, None, ())
    assert found.reason == "no engine for none here"
    with pytest.raises(BundleError, match="no artifact to track a clip with: encode"):
        check_clip(unknown[1:], tam_bundle.path, short, basis="logits")


def test_what_an_engine_refuses_fails(copy: Bundle, short: Clip) -> None:
    path = copy.file(copy.manifest.artifacts[2])
    path.unlink()
    path.write_bytes(b"rubbish")
    found = play(copy, short)
    assert (found.status, found.engine) == (ParityStatus.FAILED, "onnxruntime")
    assert path.name in (found.reason or "")


@pytest.mark.usefixtures("tam_cache")
def test_a_lost_clip_fails_the_export_and_leaves_no_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = {Precision.FP32: ClipThresholds(min_iou=1.0, relative_error=1e-12)}
    monkeypatch.setattr(clips, "CLIP_THRESHOLDS", strict)
    knobs = Knobs(memory_slots=2)
    request = make_request("efficienttam_nano", "random", (), ["onnx"], (), knobs)
    with pytest.raises(GateFailed, match="failed: clip onnx-fp32; no bundle") as caught:
        export_bundle(request, tmp_path / "out")
    (clip,) = caught.value.clips
    assert clip.status is ParityStatus.FAILED
    assert len(caught.value.artifacts) == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("tam_cache")
def test_the_same_export_takes_the_verdict_from_the_cache(
    tam_bundle: Bundle, tmp_path: Path
) -> None:
    knobs = Knobs(memory_slots=2)
    request = make_request("efficienttam_nano", "random", (), ["onnx"], (), knobs)
    again = export_bundle(request, tmp_path / "out").manifest
    before = tam_bundle.manifest
    assert again.clips == (before.clips[0].model_copy(update={"cached": True}),)
    assert before.price is not None
    assert again.price == before.price.model_copy(update={"cached": True})
    assert again.reference_sha256 == before.reference_sha256


def test_verdicts_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    got = LOGITS.copy()
    got[5] = -got[5]
    bad = judge(verdict("masks"), LOGITS, got)
    print_clips([bad, verdict("logits")])
    shown = capsys.readouterr().out
    assert "clip onnx-fp32: mask IoU 0.000 on frame 5 under 0.99" in shown
    assert "not executed here" in shown
    print_clips([])
    assert capsys.readouterr().out == ""
    show_failure([], "lost", json_output=True, clips=[bad])
    report = json.loads(capsys.readouterr().out)
    assert ClipParity.model_validate(report["clips"][0]) == bad
    assert (report["bundle"], report["error"]) == (None, "lost")

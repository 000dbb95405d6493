"""The benchmark of efficienttam-nano: its worker for real, its page from figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoneward.apps.bench.child import ChildError
from phoneward.apps.bench.nano import Bench
from phoneward.apps.bench.nano_page import render
from phoneward.apps.bench.nano_records import (
    ClipRow,
    Followed,
    FollowJob,
    Judged,
    NanoResults,
    Refused,
    Score,
)
from phoneward.apps.bench.nano_worker import follow
from phoneward.apps.bench.records import EAGER, Machine
from phoneward.bundle import Bundle
from phoneward.names import Precision
from phoneward.runtime.evaluation.metrics import Statistics
from phoneward.runtime.evaluation.prompting import PromptKind
from phoneward.runtime.evaluation.result import Subject

PYTORCH = (EAGER, Precision.FP32)
ONNX = ("onnx", Precision.FP32)


@pytest.mark.parametrize("engine", ["onnxruntime", EAGER])
def test_the_clip_is_followed(engine: str, tam_bundle: Bundle, tmp_path: Path) -> None:
    bundle = None if engine == EAGER else str(tam_bundle.path)
    done = follow(FollowJob(bundle=bundle, threads=1, answer=str(tmp_path / "masks.npy")))
    assert done.engine == engine
    assert len(done.frame_ms) == 59
    logits = np.load(tmp_path / "masks.npy")
    assert logits.shape == (60, 64, 64)
    if engine == EAGER:  # the weights that ship; the bundle's are random
        assert 0.002 < (logits > 0).mean() < 0.3


def test_sets_of_artifacts_are_held_against_pytorch(
    tam_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, 1)
    bench.bundles[ONNX] = tam_bundle
    masks = {None: np.full((2, 8, 8), -1.0), str(tam_bundle.path): np.full((2, 8, 8), -1.0)}
    masks[None][:, :, :4] = masks[str(tam_bundle.path)][:, :4, :4] = 1

    def answer(module: str, job: FollowJob, kind: type[Followed], scratch: Path) -> Followed:
        np.save(job.answer, masks[job.bundle])
        return Followed(engine="one", frame_ms=(1.0, 2.0, 9.0))

    monkeypatch.setattr("phoneward.apps.bench.nano.run_child", answer)
    for number in range(2):
        for kind in (PYTORCH, ONNX):
            bench.follow(number, kind)
    row = bench.row(ONNX)
    assert row.ious == (0.5, 0.5)
    assert row.frame_ms == 2.0
    assert len(row.runs) == 2
    assert bench.rows() == [bench.row(PYTORCH), row]

    def fail(*_: object) -> Followed:
        raise ChildError("it fell over")

    monkeypatch.setattr("phoneward.apps.bench.nano.run_child", fail)
    bench.follow(0, ("tflite", Precision.FP16))
    assert [(one.format, one.error) for one in bench.refused] == [("tflite", "it fell over")]
    # of what failed later the earlier rounds do not count, and without PyTorch nothing does
    bench.follow(2, ONNX)
    with pytest.raises(ChildError, match="no set of artifacts"):
        bench.rows()
    bench.follow(2, PYTORCH)
    with pytest.raises(ChildError, match="PyTorch cannot follow the clip: it fell over"):
        bench.rows()


def results() -> NanoResults:
    def row(format_name: str, engine: str, iou: float, *ms: float) -> ClipRow:
        runs = tuple(Followed(engine=engine, frame_ms=(each,)) for each in ms)
        ious = (iou + 0.01, iou - 0.01)
        return ClipRow(format=format_name, precision=Precision.FP16, ious=ious, runs=runs)

    def score(name: str, value: float) -> Score:
        share = Statistics(mean=value, recall=value, decay=0.1)
        return Score(name=name, jf=value, j=share, f=share, frame_ms=30.0)

    subject = Subject(
        bundle="onnx-fp16",
        model="efficienttam_nano",
        weights="package",
        weights_source="phoneward",
        weights_sha256=None,
        format="onnx",
        precision=Precision.FP16,
        engine="onnxruntime",
        threads=2,
    )
    judged = Judged(
        prompt=PromptKind.CLICK,
        subject=subject,
        clips=100,
        objects=230,
        scores=(score("tracker", 0.654), score("copy", 0.25)),
    )
    return NanoResults(
        machine=Machine(cpu="a processor", cores=2, system="Linux", versions={"numpy": "2"}),
        date="2026-01-01",
        command="python -m phoneward.apps.bench.nano",
        threads=2,
        rounds=3,
        clip=(
            row(EAGER, EAGER, 0.99, 90.0),
            row("onnx", "onnxruntime", 0.95, 31.0, 35.0, 33.0),
            row("tflite", "litert", 0.949, 52.0),
        ),
        refused=(Refused(format="coreml", precision=Precision.FP16, error="failed its gate"),),
        judged=(judged,),
    )


def test_the_page_says_what_was_found() -> None:
    page = render(results(), {PromptKind.CLICK: "sheet.jpg"})
    assert "Prompt: click. 230 objects in 100 clips; onnx fp16 by onnxruntime, 2 threads." in page
    assert "| **nano** | 65.4 |" in page
    assert "| copy | 25.0 |" in page
    assert "](sheet.jpg)" in page
    assert "| onnxruntime | onnx fp16 | 0.9500 | 0.9400 | yes | 33.0 |" in page
    assert "| litert | tflite fp16 | 0.9490 | 0.9390 | **no** | 52.0 |" in page
    assert "coreml fp16 | **failed its gate** |" in page
    assert "The fastest took 33.0 ms, as asked for." in " ".join(page.split())
    assert NanoResults.model_validate_json(results().model_dump_json()) == results()

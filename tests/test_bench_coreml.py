"""What the page on Core ML packages is made of: one model for real, and the page's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from phoneward.apps.bench.coreml import Results, folder_of, main, render
from phoneward.apps.bench.coreml_worker import CoremlJob, CoremlRow, Executed, examine
from phoneward.apps.bench.machine import this_machine
from phoneward.bundle import ClipParity
from phoneward.names import ParityStatus, Precision

GOOD = Executed(
    stage="encode",
    precision=Precision.FP16,
    ops=544,
    types=17,
    status=ParityStatus.OK,
    reason=None,
    relative_error=9.7e-4,
    top1_agreement=None,
    half_sums_error=None,
    run_s=0.25,
)
CLIP = ClipParity(
    format="coreml",
    precision=Precision.FP16,
    status=ParityStatus.OK,
    basis="masks",
    engine="mil",
    frames=2,
    ious=(1.0, 0.97),
    min_iou=0.97,
)


def page(*rows: CoremlRow) -> str:
    return render(Results(machine=this_machine(), command="python -m x", rows=rows))


def test_a_model_is_exported_executed_and_timed() -> None:
    job = CoremlJob(model="mobilenetv3_small_100", threads=1, runs=1, half_sums=True)
    row = examine(job)
    assert [p.precision for p in row.packages] == [Precision.FP32, Precision.FP16]
    single, half = row.packages
    assert single.relative_error is not None
    assert single.relative_error < 1e-5
    assert half.relative_error is not None
    assert single.relative_error < half.relative_error < 2e-2
    # of one image, where the gate has eight: it may be smaller, but it is no rounding of sums alone
    assert half.half_sums_error is not None
    assert 1e-4 < half.half_sums_error < 0.5
    assert half.half_sums_error != half.relative_error
    assert single.half_sums_error is None
    assert half.types > 5
    assert 0 < half.run_s < 10
    assert "2 of 2 packages agree" in page(row)


def test_the_page_shows_clips_and_failures() -> None:
    failed = GOOD.model_copy(
        update={"status": ParityStatus.FAILED, "reason": "features: not finite", "run_s": 0.0}
    )
    text = page(CoremlRow(model="tam", packages=(GOOD, failed), clips=(CLIP,)))
    assert "1 of 2 packages agree" in text
    assert "| tam | encode | fp16 | 544 | 17 | 9.7e-04 |" in text
    assert "**failed**" in text
    assert "- tam, encode fp16: features: not finite" in text
    assert "| tam | fp16 | masks | IoU 0.9700 | ok |" in text


def test_rows_are_kept_for_the_same_threads_and_runs_alone(tmp_path: Path) -> None:
    places = [folder_of(tmp_path, threads, runs) for threads, runs in ((1, 3), (2, 3), (1, 4))]
    assert len(set(places)) == 3
    row = CoremlRow(model="mobilenetv3_small_100", packages=(GOOD,), clips=())
    places[0].mkdir()
    (places[0] / f"{row.model}.json").write_text(row.model_dump_json())
    output = tmp_path / "page.md"
    options = ["--threads", "1", "--runs", "3", "--work", str(tmp_path), "-o", str(output)]
    assert main(["--models", row.model, *options]) == 0
    assert "| mobilenetv3_small_100 | encode | fp16 | 544 |" in output.read_text()


def test_an_unknown_model_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--models", "no_such_model"]) == 2
    assert "no_such_model" in capsys.readouterr().err

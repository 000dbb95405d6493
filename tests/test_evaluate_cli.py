"""`phoneward evaluate`: a real tracker, with random weights, and every bad input in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phoneward import __version__
from phoneward.apps.cli.annotated import open_annotated
from phoneward.apps.cli.evaluation import tell
from phoneward.bundle import Bundle
from phoneward.errors import OutputExists
from phoneward.names import Precision
from phoneward.runtime.evaluation import PromptKind, evaluate
from phoneward.runtime.evaluation.annotation import read_annotation
from phoneward.runtime.evaluation.baselines.copy import Copy
from phoneward.runtime.evaluation.folder import EvaluationFolder
from phoneward.runtime.evaluation.result import EvaluationRecord, Subject
from phoneward.runtime.evaluation.sheet import chosen
from tests.command_line import run as phoneward
from tests.evaluation_clips import Scripted, labels, sequence, square, write_davis

SEEN = labels({1: square(10), 2: square(50)})


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two sequences of four frames, two objects in each."""
    for name in ("drift", "stand"):
        write_davis(tmp_path / "davis", sequence(dict.fromkeys(range(4), SEEN), 4, name))
    return tmp_path / "davis"


def run(*arguments: object, cwd: Path) -> tuple[int, str, str]:
    done = phoneward("evaluate", *arguments, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def test_a_real_tracker(tam_bundle: Bundle, davis: Path, tmp_path: Path) -> None:
    code, out, err = run(
        tam_bundle.path, "--data", davis, "--limit", 1, "--prompt", "click", "--baseline", "copy",
        "-o", "out", "--masks", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert (code, err) == (0, "")
    record = EvaluationRecord.model_validate_json(out)
    written = (tmp_path / "out" / "evaluation.json").read_text()
    assert EvaluationRecord.model_validate_json(written) == record
    weights = tam_bundle.manifest.weights
    assert record.version == __version__
    assert record.subject == Subject(
        bundle=str(tam_bundle.path),
        model="efficienttam_nano",
        weights="random",
        weights_source=weights.source,
        weights_sha256=weights.sha256,
        format="onnx",
        precision=Precision.FP32,
        engine="onnxruntime",
        threads=2,
    )
    assert record.result.prompt is PromptKind.CLICK
    (one,) = record.result.tracker.sequences
    assert (one.name, one.size) == ("drift", (100, 100))
    assert [(each.object, each.frames) for each in one.objects] == [(1, (1, 2)), (2, (1, 2))]
    assert len(one.frame_ms) == 4
    assert record.result.tracker.frame_ms_median > 1
    # the copy is of the tracker's own first masks
    masks = tmp_path / "out" / "masks"
    first = read_annotation(masks / "tracker" / "drift" / "00000.png")
    for index in range(4):
        copied = read_annotation(masks / "copy" / "drift" / f"0000{index}.png")
        np.testing.assert_array_equal(copied, first)
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width > 4 * 240


def test_held_out_clips() -> None:
    annotated = open_annotated("held-out:3", None, 2)
    clips = list(annotated.sequences)
    assert [clip.name for clip in clips] == ["clip-000", "clip-001"]
    assert annotated.frames == sum(len(clip.frame_names) for clip in clips)
    (found,) = evaluate(Copy(), clips[:1]).tracker.sequences
    assert found.objects
    assert all(len(one.frames) == len(clips[0].frame_names) - 2 for one in found.objects)
    assert 0 < found.j.mean < 1


def record_of(davis: Path, count: int, folder: EvaluationFolder | None = None) -> EvaluationRecord:
    """What a scripted tracker gets: object 1 found on all frames, object 2 on none."""
    clips = [sequence(dict.fromkeys(range(4), SEEN), 4, f"clip {n:02d}") for n in range(count)]
    tracker = Scripted({1: dict.fromkeys(range(4), square(10))})
    watch = folder.see if folder is not None else lambda step: None
    result = evaluate(tracker, clips, baselines={"copy": Copy()}, watch=watch)
    subject = Subject(
        bundle="tam",
        model="scripted",
        weights="random",
        weights_source="seed 0",
        weights_sha256=None,
        format="onnx",
        precision=Precision.FP16,
        engine="none",
        threads=1,
    )
    return EvaluationRecord(
        version="0", date="today", data=str(davis), subset=None, subject=subject, result=result
    )


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]


def test_the_tables(davis: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell(record_of(davis, 2), None, verbose=False)
    out = capsys.readouterr().out
    rows = {row[0]: row[1:] for row in map(cells, out.splitlines()) if row}
    assert rows["clip 00"] == ["2", "2", "0.500", "0.500", "0.500", "1.000"]
    assert rows["tracker"][:-1] == ["0.500", *["0.500", "0.500", "0.000"] * 2]
    assert rows["copy"][:-1] == ["1.000", *["1.000", "1.000", "0.000"] * 2]
    assert "4 objects in 2 sequences" in " ".join(out.split())


@pytest.mark.parametrize(("count", "verbose", "told"), [(31, False, 0), (31, True, 31)])
def test_many_sequences(
    count: int, verbose: bool, told: int, davis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(record_of(davis, count), None, verbose=verbose)
    assert capsys.readouterr().out.count("clip ") == told


@pytest.mark.parametrize(("count", "rows"), [(2, 2), (7, 7), (8, 6), (13, 7)])
def test_a_sheet_has_seven_rows_at_most(count: int, rows: int, tmp_path: Path, davis: Path) -> None:
    folder = EvaluationFolder(tmp_path / "out")
    folder.close(record_of(davis, count, folder))
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        # square tiles 240 high, with two lines of text above each
        assert rows * 240 < sheet.height < (rows + 1) * 240


def test_of_many_sequences_a_sheet_shows_the_worst_the_quartiles_and_the_best(davis: Path) -> None:
    result = record_of(davis, 41).result.tracker
    one = result.sequences[0]
    many = [one.model_copy(update={"name": f"{i:02d}", "jf": i / 40}) for i in range(41)]
    shown = chosen(result.model_copy(update={"sequences": tuple(reversed(many))}))
    assert [each.name for _, each in shown] == ["00", "01", "02", "10", "20", "30", "40"]
    assert [rank for rank, _ in shown][3:] == ["first quartile", "median", "third quartile", "best"]


def test_an_earlier_evaluation_is_replaced_only_if_asked_for(
    tam_bundle: Bundle, davis: Path, tmp_path: Path
) -> None:
    folder = EvaluationFolder(tmp_path / "out", masks=True)
    folder.close(record_of(davis, 1, folder))
    kept = (tmp_path / "out" / "evaluation.json").read_bytes()
    common = (tam_bundle.path, "--data", davis, "-o", "out")
    code, _, err = run(*common, cwd=tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "out exists; choose another folder or give --force" in err
    assert (tmp_path / "out" / "evaluation.json").read_bytes() == kept
    again = EvaluationFolder(tmp_path / "out", force=True)
    again.close(record_of(davis, 2, again))
    assert not (tmp_path / "out" / "masks").exists()
    (tmp_path / "out" / "diary.txt").write_text("mine")
    code, _, err = run(*common, "--force", cwd=tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "out is not what `evaluate` writes and is never replaced" in err
    assert (tmp_path / "out" / "diary.txt").read_text() == "mine"


def test_an_evaluation_that_did_not_end_can_be_replaced(davis: Path, tmp_path: Path) -> None:
    cut = EvaluationFolder(tmp_path / "out", masks=True)
    record_of(davis, 1, cut)  # its masks are written, and then nothing more
    assert "was not ended" in (tmp_path / "out" / "evaluation.json").read_text()
    with pytest.raises(OutputExists):
        EvaluationFolder(tmp_path / "out")
    again = EvaluationFolder(tmp_path / "out", force=True)
    again.close(record_of(davis, 1, again))
    assert not (tmp_path / "out" / "masks").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "nowhere"), "nowhere: no such folder"),
        (("--data", "davis", "--set", "val"), "unknown image set 'val'"),
        (("--data", "davis", "--masks"), "--masks needs -o DIR"),
        (("--data", "davis", "--baseline", "sam"), "unknown baseline 'sam'; known: copy, flow"),
        (("--data", "davis", "--engine", "litert"), "has no such artifact; it has: onnx-fp32"),
        (("--data", "davis", "-o", "davis"), "davis is not what `evaluate` writes"),
        (("--data", "davis", "-o", "davis/JPEGImages/480p/drift/00000.jpg"), "is not what"),
        (("--data", "held-out:0"), "held-out:0: is no clip at all"),
        (("--data", "held-out", "--set", "val"), "held-out: has no sets"),
        (("--data", "held-outs"), "held-outs: no such folder"),
        (("--data", "davis", "--limit", "0"), "greater than or equal to 1"),
        (("--data", "davis", "--prompt", "word"), "'word' is not one of"),
        ((), "Missing option '--data'"),
    ],
)
def test_bad_input(
    options: tuple[str, ...], message: str, tam_bundle: Bundle, davis: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(tam_bundle.path, *options, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bundle_that_tracks_nothing(unread: Bundle, davis: Path, tmp_path: Path) -> None:
    code, out, err = run(unread.path, "--data", davis, "--json", cwd=tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    answer: dict[str, Any] = json.loads(out)
    assert "encode" in answer["error"]

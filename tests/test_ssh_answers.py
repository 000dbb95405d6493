"""Boards whose answers are not what was asked for: none becomes a report."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import phoneward
from phoneward.bundle import Bundle
from phoneward.errors import PlaceError, ReportError
from phoneward.profiles.measure import Request, Setup
from tests.ssh_board import TFLITE, Board, acting, profile


def answering(board: Board, answer: Callable[[Any], str] | str, report: Any) -> Setup:
    """A Python there that is real, but whose worker answers something else."""
    text = answer if isinstance(answer, str) else answer(report)
    (board.folder / "answer").write_text(text)
    script = f"cp {board.folder / 'answer'} report.json"
    return acting(board, script)


def a_report(bundle: Bundle) -> Any:
    return {
        "provenance": "measured",
        "created": "1970-01-01T00:00:00Z",
        "phoneward": phoneward.__version__,
        "place": "host",
        "subject": {"model": bundle.manifest.model},
        "machine": {"name": "board"},
        "stages": [
            {
                "stage": "classify",
                "artifact_sha256": bundle.manifest.artifacts[0].sha256,
                "result": {"provenance": "measured", "samples_ns": [5]},
            }
        ],
    }


def changed(path: str, value: Any) -> Callable[[Any], str]:
    def change(report: Any) -> str:
        *parents, last = path.split(".")
        target = report
        for key in parents:
            target = target[int(key) if key.isdigit() else key]
        target[last] = value
        return json.dumps(report)

    return change


def test_the_clock_and_the_place_are_ours(board: Board, unread: Bundle) -> None:
    setup = answering(board, json.dumps, a_report(unread))
    report = profile(board, Request(unread, TFLITE, setup=setup))
    assert report.created.year > 2000
    assert report.place == f"ssh://{board.address}"
    assert report.machine.name == "board"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("hello, I am a board", "the answer of ssh://.*Invalid JSON"),
        ("", "Invalid JSON"),
        ("[]", "document"),
        (
            changed("stages.0.result", {"provenance": "measured", "samples_ns": [-5]}),
            "greater than",
        ),
        (
            changed("stages.0.result", {"provenance": "measured", "samples": [5]}),
            "carry their unit",
        ),
        (
            changed("stages.0.artifact_sha256", "0" * 64),
            "the checksum of no artifact that was sent",
        ),
        (changed("subject", {"model": "another"}), '"another" was not what was sent'),
        (
            lambda report: changed(
                "stages.0.result",
                {"provenance": "predicted", "latency_ms": 1, "interval_ms": [1, 1], "basis": "x"},
            )({**report, "provenance": "predicted"}),
            "predicted, where it should be measured",
        ),
    ],
)
def test_what_is_no_report_of_ours_is_refused(
    board: Board, unread: Bundle, answer: Callable[[Any], str] | str, words: str
) -> None:
    setup = answering(board, answer, a_report(unread))
    with pytest.raises(ReportError, match=words):
        profile(board, Request(unread, TFLITE, setup=setup))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -SEGV $$", "ended by SIGSEGV: it said nothing"),
        ("echo Traceback; echo MemoryError: 1; exit 1", "code 1: Traceback / MemoryError: 1"),
        (":", "report.json: No such file"),
        (
            'echo "{\\"kind\\": \\"EngineError\\", \\"error\\": \\"bad file\\"}" > report.json',
            r"bad file \(EngineError\)",
        ),
    ],
)
def test_a_profiler_that_fails_there_is_told(
    board: Board, unread: Bundle, script: str, words: str
) -> None:
    with pytest.raises(PlaceError, match=words):
        profile(board, Request(unread, TFLITE, setup=acting(board, script)))

"""Errors cross from a worker process to its parent as they were raised."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from phoneward.errors import (
    ConversionError,
    DataError,
    MissingExtra,
    NotResults,
    PhonewardError,
    UnknownName,
)

RAISED = [
    DataError("clips", "no such folder"),
    MissingExtra("scipy", "clips"),
    UnknownName("engine", "x", ("a", "b")),
    ConversionError("tflite", "refused", Path("a.log")),
    NotResults(Path("out"), "track"),
    PhonewardError("plain"),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_pickling(error: PhonewardError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)

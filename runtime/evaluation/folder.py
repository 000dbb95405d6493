"""What an evaluation leaves: a folder with evaluation.json, sheet.png and, if asked for, masks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phoneward.errors import OutputError
from phoneward.runtime.evaluation.annotation import write_annotation
from phoneward.runtime.evaluation.protocol import Step
from phoneward.runtime.evaluation.result import SCHEMA, EvaluationRecord
from phoneward.runtime.evaluation.sheet import Sheet
from phoneward.runtime.result_folder import ResultFolder

RECORD, SHEET, MASKS = "evaluation.json", "sheet.png", "masks"
_UNFINISHED = "the evaluation was not ended"
EVALUATIONS = ResultFolder("evaluate", frozenset({RECORD, SHEET, MASKS}), RECORD, SCHEMA)


class EvaluationFolder:
    """Takes the steps of an evaluation, and at its end writes what was found.

    With `masks` every frame's objects are written as they come, PNGs with the palette of DAVIS:
    `masks/tracker/<sequence>/<frame>.png`, and beside it `masks/<baseline>/...`. Until
    the end evaluation.json says only that the evaluation has not come to it.
    """

    def __init__(self, folder: Path, *, masks: bool = False, force: bool = False) -> None:
        """Take a folder; raises as `EVALUATIONS.check_free`."""
        EVALUATIONS.check_free(folder, force=force)
        self.folder = folder
        self._masks, self._force, self._begun = masks, force, False
        self._sheet = Sheet()

    def see(self, step: Step) -> None:
        """Take a step; raises `OutputError` if its mask cannot be written."""
        self._sheet.see(step)
        try:
            self._begin()
            if not self._masks:
                return
            place = self.folder / MASKS / step.who / step.sequence.name
            place.mkdir(parents=True, exist_ok=True)
            name = step.sequence.frame_names[step.frame.index]
            write_annotation(place / f"{name}.png", step.labels)
        except OSError as error:
            raise self._translated(error) from error

    def close(self, record: EvaluationRecord) -> None:
        """Write the sheet and the record; raises `OutputError`."""
        try:
            self._begin()
            self._sheet.save(self.folder / SHEET, record.result.tracker)
            self._write(record.model_dump(mode="json"))
        except OSError as error:
            raise self._translated(error) from error

    def _begin(self) -> None:
        """Make the folder, or remove what an earlier evaluation left there."""
        if self._begun:
            return
        EVALUATIONS.take(self.folder, force=self._force)
        self._write({"format": SCHEMA, "error": _UNFINISHED})
        self._begun = True

    def _write(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, indent=1, allow_nan=False)
        (self.folder / RECORD).write_text(text + "\n", encoding="utf-8")

    def _translated(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.folder}: {error.strerror or error}")

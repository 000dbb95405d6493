"""What an evaluation leaves: a folder with evaluation.json, sheet.png and, if asked for, masks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from phoneward.errors import OutputError, OutputExists
from phoneward.runtime.evaluation.annotation import write_annotation
from phoneward.runtime.evaluation.protocol import Step
from phoneward.runtime.evaluation.result import SCHEMA, EvaluationRecord
from phoneward.runtime.evaluation.sheet import Sheet

RECORD, SHEET, MASKS = "evaluation.json", "sheet.png", "masks"
_OURS = frozenset({RECORD, SHEET, MASKS})


def check_free(folder: Path, *, force: bool = False) -> None:
    """Check that the results of an evaluation may be written to `folder`.

    Raises:
        OutputExists: an earlier evaluation is there and `force` is false.
        OutputError: what is there is neither empty nor only of an earlier evaluation.
    """
    if not os.path.lexists(folder):
        return
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else None
    if present is None or (present and not (present <= _OURS and _is_evaluation(folder))):
        raise OutputError(
            f"{folder} is not what `evaluate` writes and is never replaced; choose another"
        )
    if present and not force:
        raise OutputExists(folder)


class EvaluationFolder:
    """Takes the steps of an evaluation, and at its end writes what was found.

    With `masks` every frame's objects are written as they come, PNGs with the palette of DAVIS:
    `masks/tracker/<sequence>/<frame>.png`, and beside it `masks/<baseline>/...`. evaluation.json
    comes last: a folder without it is of an evaluation that did not end.
    """

    def __init__(self, folder: Path, *, masks: bool = False, force: bool = False) -> None:
        """Take a folder; raises as `check_free`."""
        check_free(folder, force=force)
        self.folder = folder
        self._masks, self._force, self._begun = masks, force, False
        self._sheet = Sheet()

    def see(self, step: Step) -> None:
        """Take a step; raises `OutputError` if its mask cannot be written."""
        self._sheet.see(step)
        if not self._masks:
            return
        try:
            self._begin()
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
            text = record.model_dump_json(indent=1)
            (self.folder / RECORD).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise self._translated(error) from error

    def _begin(self) -> None:
        """Make the folder, or remove what an earlier evaluation left there."""
        if self._begun:
            return
        check_free(self.folder, force=self._force)
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._begun = True

    def _translated(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.folder}: {error.strerror or error}")


def _is_evaluation(folder: Path) -> bool:
    try:
        with (folder / RECORD).open(encoding="utf-8") as file:
            return SCHEMA in file.read(200)
    except (OSError, ValueError):
        return False

"""A folder of results, which takes the place of nothing but earlier results of its kind."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from phoneward.errors import NotResults, OutputExists

_DESKTOP = frozenset({".DS_Store", "Thumbs.db"})  # left by whoever looks into a folder
_HEAD = 200  # characters of the mark in which its schema is named


@dataclass(frozen=True)
class ResultFolder:
    """What a command writes, and how to tell.

    Attributes:
        command: whose results they are, for people.
        names: of all that it writes directly in the folder.
        mark: the JSON file that says what the folder is, from the first result on.
        schema: the name of its format, a string among the first of `mark`.
    """

    command: str
    names: frozenset[str]
    mark: str
    schema: str

    def check_free(self, folder: Path, *, force: bool = False) -> None:
        """Check that results may be written to `folder`.

        What Finder and Explorer leave in a folder counts as nothing.

        Raises:
            OutputExists: earlier results are there and `force` is false.
            NotResults: what is there is neither empty nor only earlier results.
        """
        if not os.path.lexists(folder):
            return
        if not folder.is_dir():
            raise NotResults(folder, self.command)
        if present := {path.name for path in folder.iterdir()} - _DESKTOP:
            if not (present <= self.names and self._is_marked(folder)):
                raise NotResults(folder, self.command)
            if not force:
                raise OutputExists(folder)

    def take(self, folder: Path, *, force: bool = False) -> None:
        """Make the folder, without earlier results; raises as `check_free`, and `OSError`."""
        self.check_free(folder, force=force)
        if folder.is_dir():
            # the mark goes last: without it nobody may touch what is left
            for name in sorted(self.names, key=lambda name: name == self.mark):
                path = folder / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)

    def _is_marked(self, folder: Path) -> bool:
        try:
            with (folder / self.mark).open(encoding="utf-8") as file:
                head = file.read(_HEAD)
        except (OSError, ValueError):
            return False
        return f'"{self.schema}"' in head

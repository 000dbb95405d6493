"""Calibrations that a user keeps under a device's name, so that predictions find them by it."""

from __future__ import annotations

import os
from pathlib import Path

from phoneward.errors import OutputError, PredictionError, UnknownName
from phoneward.profiles.device import device_names
from phoneward.profiles.predict.calibrate import Calibration, read_calibration, write_calibration


def own_folder() -> Path:
    """Return where calibrations are kept: `$XDG_DATA_HOME/phoneward/devices`."""
    base = os.environ.get("XDG_DATA_HOME")
    home = Path(base) if base else Path.home() / ".local" / "share"
    return home / "phoneward" / "devices"


def own_names() -> tuple[str, ...]:
    """Return the names that calibrations are kept under, sorted."""
    return tuple(sorted(path.stem for path in own_folder().glob("*.json")))


def keep(calibration: Calibration, path: Path | None = None) -> Path:
    """Write a calibration, in one step; returns where: under its device's name if not told.

    Raises:
        OutputError: it cannot be written; nothing new is left behind.
    """
    path = path or own_folder() / f"{calibration.device}.json"
    staged = path.with_name(path.name + ".part")
    try:
        if path.parent == own_folder():
            path.parent.mkdir(parents=True, exist_ok=True)
        write_calibration(calibration, staged)
        staged.replace(path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def find_device(asked: str) -> tuple[str, Calibration | None]:
    """Return the device that somebody asked for, and what was measured on it, if anything was.

    Args:
        asked: name of a device file or of a calibration, which goes first, or a calibration's
            file.

    Raises:
        UnknownName: there is none; the error lists both kinds.
        PredictionError: the file, or the calibration under that name, is damaged.
    """
    file = Path(asked)
    if file.suffix == ".json" or os.sep in asked:
        if file.is_dir():
            raise PredictionError(f"{asked} is a folder, not a device or a calibration's file")
        return _opened(file)
    if asked in own_names():
        return _opened(own_folder() / f"{asked}.json")
    if asked in device_names():
        return asked, None
    raise UnknownName("device", asked, sorted({*device_names(), *own_names()}))


def _opened(file: Path) -> tuple[str, Calibration]:
    found = read_calibration(file)
    return found.device, found

"""Output that is whole or absent: filled beside its place, then renamed into it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phoneward.bundle import MANIFEST
from phoneward.errors import NotABundle, OutputError, OutputExists

# Folders being filled right now. A signal that arrives inside a vendor's C++ cannot unwind the
# stack, so an application that exits from a signal handler empties these by `discard_staging`.
_STAGING: set[Path] = set()
# Folders that are being replaced: where each lies meanwhile, and where it belongs.
_SET_ASIDE: dict[Path, Path] = {}


@contextmanager
def staging_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder in `parent` that is removed at the end unless it was renamed."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    _STAGING.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _STAGING.discard(folder)


def discard_staging() -> None:
    """Put back what is being replaced and remove what is being filled, before an exit."""
    try:
        for aside in tuple(_SET_ASIDE):
            _settle(aside)
    finally:
        for folder in tuple(_STAGING):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def staged_output(destination: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `destination` if the block ends without an error.

    The folder lies beside the destination, so that the last step is a rename: the destination
    is whole or absent, also after an error, an interrupt or a full disk. What is replaced is
    removed when its successor is in place, and put back if that fails.

    Raises:
        OutputExists: the destination exists, before the block or after it, and `force` is false.
        NotABundle: it exists and is neither a bundle nor an empty folder, whatever `force` says.
        OutputError: nothing can be written there.
    """
    parent = destination.absolute().parent
    try:
        _check_replaceable(destination, force=force)
        parent.mkdir(parents=True, exist_ok=True)
        with staging_folder(parent, f".{destination.name}-") as folder:
            yield folder
            _replace(folder, destination, force=force)
    except OSError as error:
        raise OutputError(f"cannot write {destination}: {error.strerror or error}") from error


def _check_replaceable(destination: Path, *, force: bool) -> None:
    if not os.path.lexists(destination):
        return
    if not force:
        raise OutputExists(destination)
    if (destination / MANIFEST).is_file():
        return
    if not destination.is_dir() or any(destination.iterdir()):
        raise NotABundle(destination)


def _replace(staging: Path, destination: Path, *, force: bool) -> None:
    staging.chmod(0o755)
    # once more: a conversion takes minutes, in which anything can appear there
    _check_replaceable(destination, force=force)
    if not os.path.lexists(destination):
        staging.rename(destination)
        return
    # no staging folder: whatever removes those must not take the old bundle along
    aside = Path(tempfile.mkdtemp(prefix=f".{destination.name}-old-", dir=staging.parent)) / "old"
    _SET_ASIDE[aside] = destination.absolute()
    try:
        destination.rename(aside)
        staging.rename(destination)
    finally:
        _settle(aside)
        del _SET_ASIDE[aside]


def _settle(aside: Path) -> None:
    """Put a replaced folder back unless its successor is in place; then remove what is left."""
    destination = _SET_ASIDE[aside]
    if os.path.lexists(aside) and not os.path.lexists(destination):
        try:
            aside.rename(destination)
        except OSError as error:
            raise OutputError(f"cannot put {destination} back: it is kept as {aside}") from error
    shutil.rmtree(aside.parent, ignore_errors=True)

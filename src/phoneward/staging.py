"""Output that is whole or absent: filled beside its place, then renamed into it."""

from __future__ import annotations

import json
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
# Folders that are being replaced: where each lies meanwhile, where it belongs, and its successor
# until that is in place.
_SET_ASIDE: dict[Path, tuple[Path, Path]] = {}


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


def discard_staging() -> bool:
    """Put back what is being replaced and remove what is being filled, before an exit.

    Returns whether anything was being filled. Raises `OutputError` if something replaced cannot
    be put back.
    """
    unfinished = any(folder.exists() for folder in _STAGING)
    try:
        for aside in tuple(_SET_ASIDE):
            _settle(aside)
    finally:
        for folder in tuple(_STAGING):
            shutil.rmtree(folder, ignore_errors=True)
    return unfinished


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
        check_replaceable(destination, force=force)
        parent.mkdir(parents=True, exist_ok=True)
        with staging_folder(parent, f".{destination.name}-") as folder:
            yield folder
            _replace(folder, destination, force=force)
    except OSError as error:
        raise OutputError(f"cannot write {destination}: {error.strerror or error}") from error


def check_replaceable(destination: Path, *, force: bool) -> None:
    """Raise `NotABundle` or `OutputExists` if output may not take the place of `destination`."""
    if not os.path.lexists(destination):
        return
    empty = destination.is_dir() and not any(destination.iterdir())
    if not empty and not _is_bundle(destination):
        raise NotABundle(destination)
    if not force:
        raise OutputExists(destination)


def _is_bundle(folder: Path) -> bool:
    """Tell a bundle, of whatever version and however damaged, from a folder of somebody's work."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and {"schema_version", "artifacts"} <= manifest.keys()


def _replace(staging: Path, destination: Path, *, force: bool) -> None:
    staging.chmod(0o755)
    # once more: a conversion takes minutes, in which anything can appear there
    check_replaceable(destination, force=force)
    if not os.path.lexists(destination):
        staging.rename(destination)
        return
    # no staging folder: whatever removes those must not take the old bundle along
    aside = Path(tempfile.mkdtemp(prefix=f".{destination.name}-old-", dir=staging.parent)) / "old"
    _SET_ASIDE[aside] = (destination.absolute(), staging)
    try:
        destination.rename(aside)
        staging.rename(destination)
    finally:
        try:
            _settle(aside)
        finally:
            del _SET_ASIDE[aside]


def _settle(aside: Path) -> None:
    """Put a replaced folder back unless its successor is in place; then remove what is left."""
    destination, successor = _SET_ASIDE[aside]
    if os.path.lexists(aside) and os.path.lexists(successor):
        try:
            if os.path.lexists(destination):
                raise FileExistsError(destination)
            aside.rename(destination)
        except OSError as error:
            raise OutputError(f"cannot put {destination} back: it is kept as {aside}") from error
    shutil.rmtree(aside.parent, ignore_errors=True)

"""The folder of a training: one process at a time, one training for good, files whole or absent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from phoneward.errors import InvalidSpec

IDENTITY = "identity.json"


@contextmanager
def claimed(folder: Path, identity: Mapping[str, object]) -> Iterator[None]:
    """Hold the folder for the training that `identity` describes; makes it if it is not there.

    Raises:
        InvalidSpec: another process is at work there, or it holds another training.
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        _lock(lock, folder)
        _check(folder, dict(identity))
        yield


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is whole or as it was before; raises `OSError`."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _lock(lock: IO[str], folder: Path) -> None:
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows: nothing guards the folder there
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InvalidSpec(f"{folder}: another training is at work in it") from error


def _check(folder: Path, identity: dict[str, object]) -> None:
    file = folder / IDENTITY
    if not file.exists():
        write_whole(file, (json.dumps(identity, indent=2) + "\n").encode())
        return
    try:
        found = dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InvalidSpec(f"{file}: damaged; choose another output folder") from error
    asked = json.loads(json.dumps(identity))
    different = [key for key in asked if found.get(key) != asked[key]]
    if different:
        key = different[0]
        values = found.get(key), asked[key]
        short = all(isinstance(each, int | float | str | None) for each in values)
        told = f" ({values[0]}, not {values[1]})" if short else ""
        raise InvalidSpec(
            f"{folder} holds a training with another {key}{told}; choose another output folder"
        )

"""Finished artifacts, kept by content: the same export twice converts once."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import platform
import shutil
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from phoneward.bundle import sha256_of
from phoneward.cache_root import default_root as default_root
from phoneward.staging import staging_folder

_CODE = (("phoneward", "*"), ("phoneward.export", "**/*"), ("phoneward.runtime", "**/*"))
_SOURCES = (".py", ".toml", ".jpg")
_LOG = logging.getLogger(__name__)


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Installed versions by distribution name; what is not installed is left out."""
    found = {}
    for name in sorted(set(distributions)):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def key_of(parts: Mapping[str, Any]) -> str:
    """Hash what decides an artifact's bytes, this code's own files and the machine included.

    Dataclasses and pydantic models count by all of their fields; what JSON cannot hold otherwise
    raises `TypeError`.
    """
    machine = (platform.system(), platform.machine(), platform.python_version())
    everything = {**parts, "code": _code_digest(), "machine": machine}
    text = json.dumps(everything, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


class Cache:
    """A folder of folders, one a key, each written whole or not at all.

    An entry is a set of named files or package folders; it is checked against its checksums
    when it is taken out, and a damaged one counts as absent and is removed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def take(self, key: str, destination: Path) -> dict[str, Any] | None:
        """Copy an entry's files into the folder `destination`; return its record, or None."""
        entry = self.root / key
        try:
            content = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
            record = dict(content["record"])
            whole = content["digest"] == _digest(content["files"], record) and all(
                sha256_of(entry / n) == sha for n, sha in content["files"].items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            shutil.rmtree(entry, ignore_errors=True)
            return None
        for name in content["files"]:
            _copy(entry / name, destination / name)
        return record

    def put(self, key: str, folder: Path, names: Iterable[str], record: Mapping[str, Any]) -> None:
        """Store files of `folder` with a JSON record under `key`; an existing entry stays.

        A cache that cannot be written costs the next export time and this one nothing: the reason
        is logged.
        """
        try:
            self._put(key, folder, names, record)
        except OSError as error:
            _LOG.warning("not cached in %s: %s", self.root, error.strerror or error)

    def _put(self, key: str, folder: Path, names: Iterable[str], record: Mapping[str, Any]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        with staging_folder(self.root, ".new-") as staging:
            files = {}
            for name in names:
                _copy(folder / name, staging / name)
                files[name] = sha256_of(staging / name)
            content = {"files": files, "record": record, "digest": _digest(files, record)}
            (staging / "entry.json").write_text(json.dumps(content), encoding="utf-8")
            try:
                staging.rename(self.root / key)
            except OSError:
                # another export of the same was quicker
                if not (self.root / key / "entry.json").exists():
                    raise


def _digest(files: object, record: object) -> str:
    text = json.dumps([files, record], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no stable text to hash")


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, destination)
    else:
        shutil.copyfile(source, destination)


@cache
def _code_digest() -> str:
    digest = hashlib.sha256()
    for package, pattern in _CODE:
        root = Path(str(resources.files(package)))
        for file in sorted(p for p in root.glob(pattern) if p.suffix in _SOURCES):
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()

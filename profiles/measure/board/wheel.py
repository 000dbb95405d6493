"""A wheel of the running installation, for a machine that has no Phoneward."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import phoneward

# of a fixed date: the same installation gives the same bytes, and these name the cache's folder
_DATE = (2020, 1, 1, 0, 0, 0)
_WHEEL = "Wheel-Version: 1.0\nGenerator: phoneward\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(frozen=True)
class Wheel:
    """A wheel's file name and bytes."""

    name: str
    content: bytes

    @property
    def fingerprint(self) -> str:
        """Eight characters that change with the content."""
        return hashlib.sha256(self.content).hexdigest()[:8]


def pack() -> Wheel:
    """Pack the package as it is imported here, with the metadata that it was installed with.

    It holds Python alone, so that it installs on any machine; what it depends on it only names.
    """
    installed = distribution("phoneward")
    name = f"phoneward-{installed.version}"
    stated = f"{name}.dist-info"
    members = dict(_package())
    members[f"{stated}/METADATA"] = (installed.read_text("METADATA") or "").encode()
    members[f"{stated}/entry_points.txt"] = (installed.read_text("entry_points.txt") or "").encode()
    members[f"{stated}/WHEEL"] = _WHEEL.encode()
    record = f"{stated}/RECORD"
    lines = [_record_line(path, content) for path, content in members.items()]
    members[record] = "".join([*lines, f"{record},,\n"]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in members.items():
            info = zipfile.ZipInfo(path, _DATE)
            info.external_attr = 0o644 << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return Wheel(f"{name}-py3-none-any.whl", packed.getvalue())


def _package() -> Iterator[tuple[str, bytes]]:
    root = Path(phoneward.__file__).parent
    # in a checkout the rooms are links
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = Path(folder, name)
            inside = path.relative_to(root).as_posix()
            if path.suffix not in {".pyc", ".part"} and not name.startswith("."):
                yield f"phoneward/{inside}", path.read_bytes()


def _record_line(path: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}\n"

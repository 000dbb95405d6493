"""The sandbox that emulated programs run in: where it is, and whether it is whole."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from phoneward.bundle import RelativePath, Sha256, sha256_of
from phoneward.cache_root import default_root
from phoneward.errors import PlaceError
from phoneward.spec import Spec

PREPARE = "phoneward doctor --emulator"
RECORD = "sandbox.json"
PLUGIN = "counts.so"
# where the engines lie in the guest's root folder; short and the same for everyone, since
# programs keep paths in memory, and counts must not depend on who asks
ENGINES_IN_GUEST = "/opt"
QEMU = "qemu-aarch64"
# distributions with an engine's libraries, and the engine
WHEELS = {"ai-edge-litert": "litert", "executorch": "executorch"}
_AARCH64 = b"\x7fELF\x02\x01", b"\xb7\x00"  # 64 bits, little-endian; e_machine


class Record(Spec):
    """All of `sandbox.json`.

    Attributes:
        files: SHA-256 of each file of the sandbox by its path in it.
        tools: versions of what it was made from.
    """

    schema_version: Literal[1] = 1
    files: dict[RelativePath, Sha256]
    tools: dict[str, str]


@dataclass(frozen=True)
class Sandbox:
    """A prepared sandbox: a folder that nothing changes any more, and what QEMU to use with it."""

    path: Path
    record: Record
    qemu: str

    @property
    def plugin(self) -> Path:
        """The plugin that counts."""
        return self.path / PLUGIN

    def runner(self, engine: str) -> Path:
        """The program that runs an engine's artifacts."""
        return self.path / "root" / ENGINES_IN_GUEST[1:] / engine


def sandbox_folder() -> Path:
    """Where the sandbox of this code and these versions belongs, whether it is there or not."""
    digest = hashlib.sha256()
    for file in (*sources(), Path(__file__).with_name("prepare.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    made_from = {**engine_versions(), "machine": platform.machine()}
    digest.update(json.dumps(made_from, sort_keys=True).encode())
    return default_root() / "qemu" / digest.hexdigest()[:24]


def open_sandbox(place: str) -> Sandbox:
    """Return the prepared sandbox, every file held against its checksum.

    Raises:
        PlaceError: QEMU is not installed, or there is no whole sandbox; says what to do.
    """
    qemu = find_qemu(place)
    folder = sandbox_folder()
    if not folder.exists():
        raise PlaceError(place, f"the emulator is not prepared; run: {PREPARE}")
    record = read_whole(folder)
    if record is None:
        raise PlaceError(place, f"{folder} is damaged; run: {PREPARE}")
    return Sandbox(folder, record, qemu)


def read_whole(folder: Path) -> Record | None:
    """Return a sandbox's record, or None if a file is missing or has changed."""
    try:
        record = Record.model_validate_json((folder / RECORD).read_text(encoding="utf-8"))
        whole = all(sha256_of(folder / name) == sha for name, sha in record.files.items())
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    return record if whole else None


def find_qemu(place: str) -> str:
    """Return the path of QEMU's user-mode emulator; raises `PlaceError` if there is none."""
    found = shutil.which(QEMU)
    if found is None:
        raise PlaceError(place, f"{QEMU} is not installed; on Debian: apt-get install qemu-user")
    return found


def is_aarch64(path: Path) -> bool:
    """Tell whether a file is a program or library for 64-bit Arm."""
    with path.open("rb") as stream:
        head = stream.read(20)
    return head.startswith(_AARCH64[0]) and head[18:20] == _AARCH64[1]


def sources() -> tuple[Path, ...]:
    """The sources of the plugin and the runners, in order of their names."""
    folder = Path(str(resources.files("phoneward.profiles.measure.emulator"))) / "sources"
    return tuple(sorted(p for p in folder.iterdir() if p.suffix in {".c", ".cpp", ".h"}))


@cache
def engine_versions() -> dict[str, str]:
    """Versions of the distributions with the engines: those that Phoneward is tested with."""
    text = resources.files("phoneward").joinpath("constraints.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))
    return {name: pinned[name] for name in WHEELS}

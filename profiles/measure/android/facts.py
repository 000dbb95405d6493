"""What a phone says of itself: properties, memory, temperature, room."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from phoneward.errors import PlaceError, WrongArchitecture
from phoneward.profiles.measure.android.client import ROOM
from phoneward.profiles.report.schema import Machine

if TYPE_CHECKING:
    from phoneward.profiles.measure.android.client import Phone

_PROPERTY = re.compile(r"^\[([^\]]+)\]: \[(.*)\]$", re.M)
# e_machine of ELF files, and what Android calls it
_ABIS = {183: "arm64-v8a", 40: "armeabi-v7a", 62: "x86_64", 3: "x86"}
# of android.os.PowerManager
_THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


def parse_properties(text: str) -> dict[str, str]:
    """Read the output of `getprop`."""
    return dict(_PROPERTY.findall(text))


def parse_thermal(text: str) -> str | None:
    """Return the status word in the output of `dumpsys thermalservice`, None if there is none."""
    found = re.search(r"Thermal Status:\s*(\d+)", text)
    if found is None or int(found[1]) >= len(_THERMAL):
        return None
    return _THERMAL[int(found[1])]


def parse_free_bytes(text: str) -> int | None:
    """Return what `df -k` says is available on the last file system it lists."""
    for line in reversed(text.splitlines()):
        found = re.search(r"\s(\d+)\s+(\d+)\s+(\d+)\s+\d+%", line)
        if found:
            return 1024 * int(found[3])
    return None


def machine_of(phone: Phone, properties: dict[str, str], device: str | None) -> Machine:
    """Describe a phone; what it does not tell is left out."""
    asked = phone.shell("nproc 2>/dev/null; grep MemTotal /proc/meminfo 2>/dev/null; true")
    cores = re.search(r"^(\d+)$", asked, re.M)
    memory = re.search(r"MemTotal:\s+(\d+) kB", asked)
    soc = properties.get("ro.soc.model") or properties.get("ro.board.platform")
    release = properties.get("ro.build.version.release")
    names = [properties.get(f"ro.product.{part}") for part in ("manufacturer", "model")]
    facts = {
        "build": properties.get("ro.build.fingerprint"),
        "security patch": properties.get("ro.build.version.security_patch"),
        "thermal status before": thermal(phone),
    }
    return Machine(
        name=" ".join(name for name in names if name) or phone.serial,
        device=device,
        os=f"Android {release}" if release else "Android",
        cpu=soc or None,
        architecture=properties.get("ro.product.cpu.abi"),
        cores=int(cores[1]) if cores else None,
        memory_bytes=1024 * int(memory[1]) if memory else None,
        facts={name: value for name, value in facts.items() if value},
    )


def thermal(phone: Phone) -> str | None:
    """Ask a phone how warm it is; None before Android 10."""
    return parse_thermal(phone.shell("dumpsys thermalservice 2>/dev/null; true"))


def check_program(place: str, program: Path, properties: dict[str, str]) -> None:
    """Raise `WrongArchitecture` if the phone cannot execute a program; scripts are let pass."""
    try:
        with program.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise PlaceError(place, f"--runner {program}: {error.strerror or error}") from error
    if head[:4] != b"\x7fELF" or len(head) < 20:
        if head[:2] == b"#!":
            return
        raise WrongArchitecture(place, f"--runner {program} is no Android program")
    machine = struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])[0]
    able = properties.get("ro.product.cpu.abilist") or properties.get("ro.product.cpu.abi", "")
    abi = _ABIS.get(machine, f"ELF machine {machine}")
    if abi not in able.split(","):
        raise WrongArchitecture(place, f"--runner {program} is for {abi}, the phone runs {able}")


def check_room(phone: Phone, needed: int) -> None:
    """Raise `PlaceError` if the phone says that it has too little room."""
    free = parse_free_bytes(phone.shell(f"df -k {ROOM}"))
    if free is not None and needed > free:
        raise PlaceError(
            phone.place,
            f"no space in {ROOM}: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free",
        )

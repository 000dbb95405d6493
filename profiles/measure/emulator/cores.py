"""The emulated processors, and what a program on them is told of its processor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phoneward.errors import UnknownName

_ARMV8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_ARMV8_2 = f"{_ARMV8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True)
class Core:
    """A processor.

    Engines choose their kernels by what Linux says of the processor in /proc/cpuinfo, some of them
    by the part's number alone, so that an emulated program must be shown the emulated part's.

    Attributes:
        name: as it is asked for.
        qemu: what QEMU calls it, with options.
        part: Arm's part number (MIDR_EL1[15:4]).
        variant: its major revision.
        revision: its minor revision.
        features: in the words of /proc/cpuinfo.
        note: what to know of it, for a reader.
    """

    name: str
    qemu: str
    part: int
    variant: int
    revision: int
    features: str
    note: str

    def cpuinfo(self) -> str:
        """The text of /proc/cpuinfo for a machine with one such core."""
        return (
            "processor\t: 0\n"
            "BogoMIPS\t: 38.40\n"
            f"Features\t: {self.features}\n"
            "CPU implementer\t: 0x41\n"
            "CPU architecture: 8\n"
            f"CPU variant\t: 0x{self.variant:x}\n"
            f"CPU part\t: 0x{self.part:03x}\n"
            f"CPU revision\t: {self.revision}\n\n"
        )

    def write_files(self, root: Path) -> None:
        """Write what Linux would tell of one such core below `root`, a guest's root folder."""
        (root / "proc").mkdir(parents=True)
        (root / "proc/cpuinfo").write_text(self.cpuinfo(), encoding="ascii")
        processors = root / "sys/devices/system/cpu"
        processors.mkdir(parents=True)
        # one processor: thread pools then have one thread, and counts do not depend on scheduling
        for name in ("possible", "present", "online"):
            (processors / name).write_text("0\n", encoding="ascii")
        (processors / "kernel_max").write_text("0\n", encoding="ascii")


_ALL = (
    Core("cortex-a53", "cortex-a53", 0xD03, 0, 4, _ARMV8, "Armv8.0, in order"),
    Core("cortex-a55", "cortex-a55", 0xD05, 2, 0, _ARMV8_2, "Armv8.2 with dot products, in order"),
    Core("cortex-a72", "cortex-a72", 0xD08, 0, 3, _ARMV8, "Armv8.0; Raspberry Pi 4"),
    Core("cortex-a76", "cortex-a76", 0xD0B, 4, 1, _ARMV8_2, "Armv8.2; Raspberry Pi 5, Pixel 5"),
    Core(
        "max",
        "max,sve=off",
        0xD47,
        1,
        0,
        f"{_ARMV8_2} i8mm bf16",
        "everything QEMU knows but SVE, shown as a Cortex-A710: phones of 2022 and later",
    ),
)
CORES: dict[str, Core] = {core.name: core for core in _ALL}


def find_core(name: str) -> Core:
    """Return a core by name; raises `UnknownName` with those there are."""
    try:
        return CORES[name]
    except KeyError:
        raise UnknownName("emulated processor", name, CORES) from None

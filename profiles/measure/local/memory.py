"""How much memory a process has, and had at most."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from phoneward.profiles.report.schema import Memory

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # of proc(5): sets VmHWM to the present resident size


@dataclass(frozen=True)
class MemoryMark:
    """A moment from which on the peak is looked for."""

    before_bytes: int | None
    source: str

    @classmethod
    def set(cls) -> MemoryMark:
        """Begin here; where the system lets nobody reset the peak it is the whole process's."""
        if not _STATUS.exists():
            return cls(None, "ru_maxrss of the worker process, since its start")
        try:
            _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
        except OSError:
            return cls(_field("VmRSS"), "VmHWM of the worker process, since its start")
        return cls(_field("VmRSS"), "VmHWM of the worker process, since loading began")

    def peak(self) -> Memory:
        """Return the peak until now."""
        if not _STATUS.exists():
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            unit = 1 if sys.platform == "darwin" else 1024
            return Memory(peak_bytes=most * unit, source=self.source)
        return Memory(
            peak_bytes=_field("VmHWM"), before_bytes=self.before_bytes, source=self.source
        )


def _field(name: str) -> int:
    """Bytes of a line such as `VmHWM:   12345 kB`."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise KeyError(name)

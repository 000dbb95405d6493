"""Every error Phoneward raises on purpose.

    PhonewardError                      exit code 2 unless a class says otherwise
    ├── UnknownName                     a name that no registry entry has
    ├── DuplicateName                   a second entry under a taken name
    ├── MissingExtra                    a package that an extra would install
    ├── InvalidSpec                     a value that contradicts its own type
    ├── TensorMismatch                  an array that is not what a spec asks for
    ├── WeightsError                    weights that cannot be read or do not fit the model
    │   └── HubUnavailable              the hub with the pretrained weights was not reached
    ├── ImageError                      a file that is not a readable image
    ├── DataError                       a data set that is not there, damaged, or of no use
    ├── VideoError                      frames that cannot be read to the end
    ├── Interrupted                     a signal ended the work; what was done is kept
    ├── PromptError                     a prompt that says nothing, or of no place in the video
    ├── BundleError                     a folder that is not a whole, unchanged bundle
    │   └── ArtifactChanged             a file whose bytes are not those that were exported
    ├── OutputError                     the place to write to cannot be written
    │   └── OutputExists                ... because something is there already
    │       ├── NotABundle              ... which is no bundle, so that --force leaves it alone
    │       └── NotResults              ... which the command did not write: likewise
    ├── ConversionError                 a vendor converter refused the model
    ├── EngineError                     an artifact could not be loaded or run
    ├── PlaceError                      a machine could not be profiled on
    │   ├── PlaceUnreachable            ... it is not there, refuses us, or went away
    │   └── WrongArchitecture           ... it cannot execute what was sent
    ├── ReportError                     a file that is not a latency report
    ├── PredictionError                 no latency can be predicted
    │   └── TooMuchUnpriced             ... because too much of the graph has no price
    ├── TargetMissed                    exit code 3: no choice meets the latency target
    └── ParityError                     exit code 1: an artifact disagrees with PyTorch

An error carries what a caller may want to act on; how it is printed is the business of
`phoneward.apps.cli`. Foreign exceptions are translated where they enter (`raise ... from`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class PhonewardError(Exception):
    """Base of all errors raised on purpose; `str()` is one line fit for a user."""

    exit_code = 2

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross from one process to another, whatever a class is made of."""
        return _restored, (type(self), self.args, vars(self))


def _restored(
    kind: type[PhonewardError], arguments: tuple[Any, ...], state: dict[str, Any]
) -> PhonewardError:
    error = kind.__new__(kind, *arguments)
    vars(error).update(state)
    return error


class UnknownName(PhonewardError):
    """A registry was asked for a name that it does not hold."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        super().__init__(f"unknown {kind} '{name}'; known: {', '.join(self.known)}")


class DuplicateName(PhonewardError):
    """A registry was given a second entry under the same name."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        super().__init__(f"{kind} '{name}' is registered already")


class MissingExtra(PhonewardError):
    """A package is not installed; the message is the exact command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        self.what, self.extra = what, extra
        super().__init__(f"{what} is not installed; run: pip install 'phoneward[{extra}]'")


class InvalidSpec(PhonewardError):
    """A spec, device file or manifest has unknown keys or values out of range."""


class TensorMismatch(PhonewardError):
    """An array has another shape or dtype than the spec of the tensor it is meant for."""


class WeightsError(PhonewardError):
    """A weights file cannot be read, or its keys and shapes are not the model's."""


class HubUnavailable(WeightsError):
    """Pretrained weights were asked for and their hub could not be reached."""


class ImageError(PhonewardError):
    """A file is not an image that can be decoded."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"{path}: not a readable image ({reason})")


class DataError(PhonewardError):
    """A data set, or a file of one, is missing, damaged, or cannot be trained on."""

    def __init__(self, source: Path | str, reason: str) -> None:
        self.source, self.reason = source, reason
        super().__init__(f"{source}: {reason}")


class VideoError(PhonewardError):
    """A video, folder of images or camera cannot be read, or not to its end."""

    def __init__(self, source: Path | str, reason: str) -> None:
        self.source, self.reason = source, reason
        super().__init__(f"{source}: {reason}")


class Interrupted(PhonewardError):
    """A signal asked for an end; what was done until then is kept."""


class PromptError(PhonewardError):
    """A prompt is empty or contradicts itself, its frame or its video."""


class BundleError(PhonewardError):
    """A folder is not a whole bundle."""


class ArtifactChanged(BundleError):
    """A file of a bundle does not have the checksum that its manifest states."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path}: changed since it was exported (sha256 differs)")


class OutputError(PhonewardError):
    """Output could not be written: no space, no permission, no such folder."""


class OutputExists(OutputError):
    """The output folder exists and `--force` was not given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} exists; choose another folder or give --force to replace it")


class NotABundle(OutputExists):
    """What lies at the output's place is no bundle, so that even `--force` leaves it alone."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.args = (f"{path} is not a bundle and is never replaced; choose another folder",)


class NotResults(OutputExists):
    """What lies at the output's place the command did not write: `--force` leaves it alone."""

    def __init__(self, path: Path, command: str) -> None:
        super().__init__(path)
        self.args = (
            f"{path} is not what `{command}` writes and is never replaced; choose another",
        )


class ConversionError(PhonewardError):
    """A converter failed; `log` names the file with its full output."""

    def __init__(self, format_name: str, reason: str, log: Path | None = None) -> None:
        self.format, self.log = format_name, log
        where = f" (log: {log})" if log else ""
        super().__init__(f"conversion to {format_name} failed: {reason}{where}")


class EngineError(PhonewardError):
    """An engine could not load or run an artifact."""


class PlaceError(PhonewardError):
    """A machine to profile on failed; `place` is as it was asked for."""

    def __init__(self, place: str, reason: str) -> None:
        self.place, self.reason = place, reason
        super().__init__(f"{place}: {reason}")


class PlaceUnreachable(PlaceError):
    """A machine is not there, does not let us in, or went away in the middle."""


class WrongArchitecture(PlaceError):
    """A machine cannot execute what was, or would be, sent to it."""


class ReportError(PhonewardError):
    """A file is not a latency report, or contradicts itself."""

    def __init__(self, source: Path | str, reason: str) -> None:
        self.source, self.reason = source, reason
        super().__init__(f"{source}: {reason}")


class PredictionError(PhonewardError):
    """No latency can be predicted for this model on this device."""


class TooMuchUnpriced(PredictionError):
    """A graph has too many ops without a price; `ops` counts them by name."""

    def __init__(self, ops: Mapping[str, int], reason: str) -> None:
        self.ops = dict(ops)
        super().__init__(reason)


class TargetMissed(PhonewardError):
    """No choice that was allowed meets the latency target."""

    exit_code = 3


class ParityError(PhonewardError):
    """An artifact's outputs are further from PyTorch's than the thresholds allow."""

    exit_code = 1

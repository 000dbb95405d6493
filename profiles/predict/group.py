"""Where and how a latency was taken: the key by which rows, and what they share, are told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from phoneward.errors import PredictionError

Unit = Literal["ane", "ane15", "npu", "nnapi", "gpu", "cpu"]
UNITS: tuple[Unit, ...] = ("ane", "ane15", "npu", "nnapi", "gpu", "cpu")
NUMERICS = ("fp", "w8a8", "w8a16", "mixed")
_NUMERICS = {
    "fp": "fp",
    "fp16": "fp",
    "fp32": "fp",
    "float": "fp",
    "int8": "w8a8",
    "w8a8": "w8a8",
    "w8a16": "w8a16",
    "mixed": "mixed",
    "w8a8_mixed_int16": "mixed",
    "w8a16_mixed_int16": "mixed",
}
LEVELS = ("all", "unit", "soc", "runtime", "numeric", "recipe", "chip", "lab", "group")
"""What groups can have in common, from everything to the group itself."""


def numeric_of(precision: str) -> str:
    """Return the class of arithmetic of a precision's name.

    Public tables rarely tell whether an accelerator computed a float graph in half or in single
    precision, so `fp16`, `fp32` and `float` are one class.

    Raises:
        PredictionError: no such precision; the error lists the known ones.
    """
    try:
        return _NUMERICS[precision]
    except KeyError:
        known = ", ".join(sorted(_NUMERICS))
        raise PredictionError(f"no precision '{precision}': one of {known}") from None


@dataclass(frozen=True)
class Group:
    """Rows that differ only in their model.

    Attributes:
        unit: what executes. `ane15` is a Neural Engine under iOS 15 and the converters of 2022,
            where graphs with many ops took up to four times as long: another unit in effect.
        soc: the chip, as `data/socs.csv` spells it.
        device: as the source spells it, or a device file's name for a prediction.
        runtime: `coreml`, `tflite`, `onnxruntime`, `executorch`, `qnn`, `ncnn`, ...
        numeric: one of NUMERICS.
        threads: which cores, where a source tells (`4t big`).
        lab: who measured, with which version of OS and converter: one device is not the same over
            time. Empty for a prediction: somebody, today.
    """

    unit: str
    soc: str
    device: str
    runtime: str
    numeric: str
    threads: str = ""
    lab: str = ""

    def key(self, level: str) -> tuple[str, ...]:
        """What a group must have equal to share the effects of a level."""
        return {
            "all": (),
            "unit": (self.unit,),
            "soc": (self.unit, self.soc),
            "runtime": (self.unit, self.runtime),
            "numeric": (self.unit, self.numeric),
            "recipe": (self.unit, self.runtime, self.numeric),
            "chip": (self.unit, self.soc, self.numeric),
            "lab": (self.unit, self.lab),
            "group": self._all(),
        }[level]

    @property
    def family(self) -> str:
        """The name under which the physics of its kind of unit and arithmetic is kept."""
        return f"{self.unit}-{'fp' if self.numeric == 'fp' else 'int'}"

    def _all(self) -> tuple[str, ...]:
        return (
            self.unit,
            self.soc,
            self.device,
            self.runtime,
            self.numeric,
            self.threads,
            self.lab,
        )

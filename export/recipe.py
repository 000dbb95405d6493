"""What to make of a stage: one format at one precision for one deployment target."""

from __future__ import annotations

from dataclasses import dataclass

from phoneward.names import Precision

AUTO = "auto"
"""Keep in single precision what the package does not agree with PyTorch without."""


@dataclass(frozen=True, order=True)
class Recipe:
    """One artifact to make.

    `target` is the lowest operating system the artifact must run on (`iOS17`, `iOS18`); only
    Core ML knows it. `keep_fp32` names what stays in single precision in a half-precision Core ML
    package: ops by name, modules by path, or `AUTO`. Equal recipes make equal artifacts.
    """

    format: str
    precision: Precision = Precision.FP32
    target: str | None = None
    keep_fp32: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the name used for files and tables, such as `coreml-fp16`."""
        return f"{self.format}-{self.precision}"

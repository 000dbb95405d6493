"""The closed choices that several rooms share, spelled once."""

from __future__ import annotations

from enum import Enum


class Precision(str, Enum):
    """Numeric precision of an artifact.

    `fp16` means what the format makes of it: Core ML and ExecuTorch compute in half precision,
    TFLite and ONNX Runtime store half-precision weights and may compute in single precision.

    `int8` is of linear layers alone: weights in 8 bits with a scale an output channel, activations
    in floating point, quantized on the fly by engines that multiply integers. The rest is `fp32`,
    in Core ML `fp16`, as is a whole graph that has no linear layers.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"

    def __str__(self) -> str:
        """Return the bare name, as written in manifests and on the command line."""
        return self.value


class Provenance(str, Enum):
    """How a latency is known: a clock, an emulated processor's counters, or a model."""

    MEASURED = "measured"
    EMULATED = "emulated"
    PREDICTED = "predicted"

    def __str__(self) -> str:
        """Return the word that reports use."""
        return self.value


class ParityStatus(str, Enum):
    """What is known of an artifact's agreement with PyTorch."""

    OK = "ok"
    FAILED = "failed"
    NOT_EXECUTED = "not executed here"

    def __str__(self) -> str:
        """Return the wording that reports use."""
        return self.value

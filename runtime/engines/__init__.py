"""The engines that run artifacts; one file an engine, found by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from phoneward.errors import EngineError, MissingExtra
from phoneward.registry import Entry, Registry

if TYPE_CHECKING:
    from phoneward.runtime.engines.session import Session
    from phoneward.spec import TensorSpec


class Engine(Protocol):
    """Opens artifacts of its format.

    Raises `EngineError` for a file that it cannot load; vendor exceptions never get out.
    """

    def __call__(
        self,
        path: Path,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        threads: int,
    ) -> Session:
        """Load `path`, whose tensors in order are `inputs` and `outputs`."""
        ...


# the one that loads quickest first: ExecuTorch's bindings import torch, and `mil` is for checking
ENGINES: Registry[Engine] = Registry(
    "engine",
    {
        "litert": Entry(
            "phoneward.runtime.engines.litert:LiteRTSession",
            "litert",
            ("ai_edge_litert", "tflite_runtime"),
            one_is_enough=True,
        ),
        "onnxruntime": Entry(
            "phoneward.runtime.engines.onnxruntime:OnnxRuntimeSession",
            "onnxruntime",
            ("onnxruntime",),
        ),
        "coreml": Entry(
            "phoneward.runtime.engines.coreml:CoreMLSession", "coreml", ("coremltools",)
        ),
        "executorch": Entry(
            "phoneward.runtime.engines.executorch:ExecuTorchSession", "executorch", ("executorch",)
        ),
        "mil": Entry(
            "phoneward.runtime.engines.mil.session:MilSession", "mil", ("coremltools", "torch")
        ),
    },
)

# which engines read a format, the preferred one first
_BY_FORMAT = {
    "tflite": ("litert",),
    "executorch": ("executorch",),
    "onnx": ("onnxruntime",),
    "coreml": ("coreml", "mil"),
}

_ABSENT = "not installed"


def engines_for(format_name: str) -> tuple[str, ...]:
    """Return the engines that can run a format on this machine, the preferred one first."""
    return tuple(name for name in _BY_FORMAT.get(format_name, ()) if why_not(name) is None)


def format_of(engine: str) -> str:
    """Return the format an engine reads; raises `UnknownName` for an unknown engine."""
    ENGINES.entry(engine)
    return next(name for name, engines in _BY_FORMAT.items() if engine in engines)


def why_not(engine: str) -> str | None:
    """Say why an engine cannot run here, or None if it can; imports no vendor package."""
    entry = ENGINES.entry(engine)
    if engine == "coreml" and sys.platform != "darwin":
        return "Core ML runs only on macOS and iOS"
    if entry.missing():
        return f"{_ABSENT}; run: pip install 'phoneward[{entry.extra}]'"
    return None


def open_session(
    engine: str,
    path: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    threads: int = 1,
) -> Session:
    """Open an artifact with a named engine.

    Raises:
        UnknownName: no such engine.
        MissingExtra: its package is not installed.
        EngineError: the engine cannot run here, or cannot load the file.
    """
    reason = why_not(engine)
    if reason is not None:
        if reason.startswith(_ABSENT):
            raise MissingExtra(f"engine '{engine}'", ENGINES.entry(engine).extra)
        raise EngineError(f"engine '{engine}': {reason}")
    if not path.exists():
        raise EngineError(f"{path}: no such file")
    return ENGINES.get(engine)(path, inputs, outputs, threads)

"""Import an engine's package ahead of time, so that loading an artifact is timed without it.

On a phone the engine is linked into the app; what Python takes to import it says nothing there.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings

from phoneward.errors import EngineError
from phoneward.runtime.engines import ENGINES

_MODULES: dict[str, tuple[str, ...]] = {
    "litert": ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"),
    "onnxruntime": ("onnxruntime",),
    "executorch": ("torch", "executorch.runtime"),
    "coreml": ("coremltools",),
    "mil": ("torch", "coremltools"),
}


def preload(engine: str) -> None:
    """Import what loading with this engine would import.

    Raises:
        UnknownName, MissingExtra: no such engine, or its package is not installed.
        EngineError: its package cannot be imported.
    """
    ENGINES.require(engine)
    ENGINES.get(engine)
    names = [n for n in _MODULES[engine] if importlib.util.find_spec(n.partition(".")[0])]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names[:1] if ENGINES.entry(engine).one_is_enough else names:
                importlib.import_module(name)
    except Exception as error:  # packages raise anything over a library that is not there
        raise EngineError(f"engine '{engine}' cannot be imported: {error}") from error

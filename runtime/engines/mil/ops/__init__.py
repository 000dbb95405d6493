"""What every op of an ML program computes; one module a group of coremltools' op definitions."""

from __future__ import annotations

from importlib import import_module

from phoneward.runtime.engines.mil.signature import Op, merged

_MODULES = (
    "activation",
    "attention",
    "binary",
    "compression",
    "control",
    "conv",
    "labels",
    "linear",
    "normalization",
    "pool",
    "random",
    "recurrent",
    "reduction",
    "resize",
    "scatter",
    "tensors",
    "transformation",
    "unary",
)

OPS: dict[str, Op] = merged(import_module(f"{__name__}.{name}").TABLE for name in _MODULES)

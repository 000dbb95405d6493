"""What every op of an ML program computes; one module a group of coremltools' op definitions."""

from __future__ import annotations

from phoneward.runtime.engines.mil.ops import (
    activation,
    attention,
    binary,
    compression,
    control,
    conv,
    labels,
    linear,
    normalization,
    pool,
    random,
    recurrent,
    reduction,
    resize,
    scatter,
    tensors,
    transformation,
    unary,
)
from phoneward.runtime.engines.mil.signature import Op, merged

_MODULES = (
    activation,
    attention,
    binary,
    compression,
    control,
    conv,
    labels,
    linear,
    normalization,
    pool,
    random,
    recurrent,
    reduction,
    resize,
    scatter,
    tensors,
    transformation,
    unary,
)

OPS: dict[str, Op] = merged(module.TABLE for module in _MODULES)

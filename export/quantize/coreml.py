"""Core ML: int8 weights of `linear` and `matmul`, unpacked to halves when they are read."""

from __future__ import annotations

from typing import Any

from phoneward.export.quantize import LEAST_WEIGHTS

_PASS = "compression::linear_quantize_weights"


def with_int8_weights(passes: Any) -> Any:
    """Append the compression of linear layers' weights to coremltools' `passes`; return them.

    Core ML 7 (iOS 17) has no products of integers with dynamic scales: weights are read in 8 bits
    and everything is computed in floating point, whose precision the conversion decides.
    """
    from coremltools.optimize.coreml import OpLinearQuantizerConfig, OptimizationConfig

    weights = OpLinearQuantizerConfig(
        mode="linear_symmetric",
        dtype="int8",
        granularity="per_channel",
        weight_threshold=LEAST_WEIGHTS - 1,
    )
    config = OptimizationConfig(op_type_configs={"linear": weights, "matmul": weights})
    passes.append_pass(_PASS)
    passes.set_options(_PASS, {"config": config})
    return passes

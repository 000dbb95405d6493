"""TFLite: `FULLY_CONNECTED` with int8 weights, which XNNPACK runs as qd8-f32-qc8w."""

from __future__ import annotations

from phoneward.export.quantize import LEAST_WEIGHTS

# ai-edge-quantizer's recipe dynamic_wi8_afp32 for one kind of operator
_INT8_WEIGHTS = {
    "regex": ".*",
    "operation": "FULLY_CONNECTED",
    "algorithm_key": "min_max_uniform_quantize",
    "op_config": {
        "weight_tensor_config": {
            "num_bits": 8,
            "symmetric": True,
            "granularity": "CHANNELWISE",
            "dtype": "INT",
        },
        "compute_precision": "INTEGER",
        "explicit_dequantize": False,
        "min_weight_elements": LEAST_WEIGHTS,
    },
}


def quantized(content: bytes) -> bytes:
    """Return the float32 model `content` with the weights of its linear layers in int8.

    litert-torch makes a `FULLY_CONNECTED` of every product with a constant matrix; its
    `BATCH_MATMUL` multiplies two activations and stays in float32.
    """
    from ai_edge_quantizer.quantizer import Quantizer

    quantizer = Quantizer(content)
    quantizer.load_quantization_recipe([_INT8_WEIGHTS])
    return bytes(quantizer.quantize().quantized_model)

"""ONNX: `MatMulInteger` behind `DynamicQuantizeLinear`, which ONNX Runtime fuses at load."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from phoneward.errors import MissingExtra
from phoneward.export.quantize import LEAST_WEIGHTS

_PRODUCTS = ("MatMul", "Gemm")
# the mark of ONNX Runtime's own preparation, without which it warns on the root logger; all that
# is prepared are the shapes, which torch has written down already
_PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")


def quantized(model: Any) -> Any:
    """Return a model like the float32 `model` with the weights of its linear layers in int8.

    A `Gemm` becomes a product and a sum. Weights use the 7 bits from -64 to 64: activations are
    uint8, and x86 without VNNI adds pairs of products up in 16 bits, which 255 * 127 * 2 does not
    fit and 255 * 64 * 2 does. Five layers of 784 to 784 numbers on such a CPU (AVX2), error of
    the range and median time of 1 and of 32 rows: 7 bits 2e-3, 0.06 ms, 0.35 ms; 8 bits 2e-2,
    saturated, as fast; uint8, which is multiplied in 32 bits, 1e-3, 0.09 ms, 0.43 ms; float32
    0.09 ms, 0.63 ms. A CPU with VNNI or of Arm's loses the eighth bit and is as exact.

    Raises:
        MissingExtra: ONNX Runtime, which has the quantizer, is not installed.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ModuleNotFoundError as error:
        raise MissingExtra("onnxruntime", "onnx") from error
    import onnx

    marked = onnx.ModelProto()
    marked.CopyFrom(model)
    marked.metadata_props.add(key=_PREPARED[0], value=_PREPARED[1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        quantize_dynamic(
            marked,
            path,
            op_types_to_quantize=list(_PRODUCTS),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_left_out(model),
        )
        made = onnx.load(path)
    del made.metadata_props[:]
    made.metadata_props.extend(model.metadata_props)
    return made


def _left_out(model: Any) -> list[str]:
    """Names of products with a constant that is small or no matrix (one scale a column)."""
    shapes = {each.name: each.dims for each in model.graph.initializer}
    names = []
    for node in model.graph.node:
        if node.op_type not in _PRODUCTS or node.input[1] not in shapes:
            continue
        rows, *others = shapes[node.input[1]] or (1,)
        if len(others) != 1 or rows * others[0] < LEAST_WEIGHTS:
            # a Gemm is renamed when it becomes a product
            names += [node.name, f"{node.name}_MatMul"]
    return names

"""TFLite models (.tflite) for LiteRT, with channel-last images and metadata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from phoneward.export.backends import Lowered
from phoneward.names import Precision
from phoneward.spec import TensorSpec

if TYPE_CHECKING:
    from torch import nn

    from phoneward.bundle import Stage
    from phoneward.export.backends import Graph
    from phoneward.export.recipe import Recipe


# ai-edge-quantizer's recipe for half-precision weights of convolutions and matrix products
_FP16_WEIGHTS = {
    "regex": ".*",
    "operation": "*",
    "algorithm_key": "float_casting",
    "op_config": {
        "weight_tensor_config": {"num_bits": 16, "dtype": "FLOAT"},
        "compute_precision": "FLOAT",
        "explicit_dequantize": True,
    },
}


class TFLiteBackend:
    """litert-torch's converter; NCHW tensors become NHWC, which is what cameras deliver.

    fp16 halves the stored weights; kernels compute in float32 on CPUs without half arithmetic,
    and GPU delegates compute in half precision from either file. int8 is of fully connected layers,
    which XNNPACK multiplies as integers.
    """

    suffix = ".tflite"
    precisions = (Precision.FP32, Precision.FP16, Precision.INT8)
    targets: tuple[str, ...] = ()
    distributions = ("litert-torch", "litert-converter", "ai-edge-quantizer", "torch")

    def lower(self, graph: Graph, recipe: Recipe, out: Path) -> Lowered:
        """Write a model with the signature `serving_default`."""
        import litert_torch

        from phoneward.export.backends.tflite_delegation import delegation_of
        from phoneward.export.backends.tflite_metadata import with_metadata
        from phoneward.export.backends.trace import example_inputs
        from phoneward.export.quantize.tflite import quantized

        stage = graph.stage
        module, inputs, outputs = _channel_last(graph.module, stage)
        examples = tuple(
            x.permute(0, 2, 3, 1).contiguous() if spec.layout == "NHWC" else x
            for x, spec in zip(example_inputs(stage), inputs, strict=True)
        )
        content = litert_torch.convert(module, examples).model_content()
        if recipe.precision is Precision.FP16:
            content = _half_weights(content)
        elif recipe.precision is Precision.INT8:
            content = quantized(content)
        out.write_bytes(with_metadata(content, graph.about, inputs, outputs, stage.image))
        return Lowered(inputs, outputs, delegation_of(out))


def _channel_last(
    module: nn.Module, stage: Stage
) -> tuple[nn.Module, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    import litert_torch

    args = [i for i, spec in enumerate(stage.inputs) if spec.layout == "NCHW"]
    outs = [i for i, spec in enumerate(stage.outputs) if spec.layout == "NCHW"]
    wrapped = litert_torch.to_channel_last_io(module, args=args or None, outputs=outs or None)
    return (
        wrapped.eval(),
        tuple(_nhwc(spec) for spec in stage.inputs),
        tuple(_nhwc(spec) for spec in stage.outputs),
    )


def _nhwc(spec: TensorSpec) -> TensorSpec:
    if spec.layout != "NCHW":
        return spec
    n, c, h, w = spec.shape
    return spec.model_copy(update={"shape": (n, h, w, c), "layout": "NHWC"})


def _half_weights(content: bytes) -> bytes:
    from ai_edge_quantizer.quantizer import Quantizer

    quantizer = Quantizer(content)
    quantizer.load_quantization_recipe([_FP16_WEIGHTS])
    return bytes(quantizer.quantize().quantized_model)


TFLITE = TFLiteBackend()

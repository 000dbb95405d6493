"""ONNX models for ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoneward.export.backends import Lowered
from phoneward.names import Precision

if TYPE_CHECKING:
    from phoneward.export.backends import About, Graph
    from phoneward.export.recipe import Recipe

# 20 is the first opset with Gelu as one operator
_OPSET = 20


class OnnxBackend:
    """torch.onnx's exporter; float32 NCHW inputs and outputs.

    fp16 stores and computes in half precision between two casts; ONNX Runtime's CPU provider
    computes most of it in single precision. int8 is of linear layers, multiplied as integers.
    """

    suffix = ".onnx"
    precisions = (Precision.FP32, Precision.FP16, Precision.INT8)
    targets: tuple[str, ...] = ()
    distributions = ("onnx", "onnxscript", "onnxruntime", "torch")

    def lower(self, graph: Graph, recipe: Recipe, out: Path) -> Lowered:
        """Write one self-contained file (weights inside)."""
        import torch

        from phoneward.export.backends.half import halved
        from phoneward.export.backends.trace import example_inputs
        from phoneward.export.quantize.onnx import quantized

        if recipe.precision is Precision.FP16:
            graph = halved(graph)
        stage = graph.stage
        program = torch.onnx.export(
            graph.module,
            example_inputs(stage),
            input_names=[spec.name for spec in stage.inputs],
            output_names=[spec.name for spec in stage.outputs],
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned no program")
        model = program.model_proto
        if recipe.precision is Precision.INT8:
            model = quantized(model)
        _describe(model, graph.about)
        out.write_bytes(model.SerializeToString())
        return Lowered(stage.inputs, stage.outputs)


def _describe(model: Any, about: About) -> None:
    model.doc_string = about.description
    model.producer_version = about.version
    properties = {"title": about.title, "licence": about.licence, "version": about.version}
    if about.labels:
        properties["labels"] = "\n".join(about.labels)
    for key, value in properties.items():
        model.metadata_props.add(key=key, value=value)


ONNX = OnnxBackend()

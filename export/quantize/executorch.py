"""ExecuTorch: PT2E's dynamic quantization of `linear`, which XNNPACK runs as qd8-f32-qc8w."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from phoneward.export.backends.trace import example_inputs, trace
from phoneward.export.quantize import LEAST_WEIGHTS

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from phoneward.export.backends import Graph


def quantized(graph: Graph) -> ExportedProgram:
    """Return the program of a graph with the weights of its linear layers in int8.

    The graph's own module stays as it is. One run on random inputs shows the observers the
    weights; activations are quantized when the program runs.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer()
    quantizer.set_operator_type(torch.ops.aten.linear.default, _config())
    quantizer.set_filter_function(_is_large)
    inputs = example_inputs(graph.stage)
    with torch.no_grad():
        module = prepare_pt2e(trace(graph).module(), quantizer)
        module(*inputs)
        return torch.export.export(convert_pt2e(module), inputs, strict=False)


def _config() -> Any:
    """XNNPACK's own settings, but for the smallest scale of a weight.

    That is 2^-12 there, so that rows of weights below 0.03 would have fewer than 8 bits.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e import PerChannelMinMaxObserver

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    observer = PerChannelMinMaxObserver.with_args(eps=torch.finfo(torch.float32).tiny)
    weight = dataclasses.replace(config.weight, observer_or_fake_quant_ctr=observer)
    return dataclasses.replace(config, weight=weight)


def _is_large(node: Any) -> bool:
    weight = node.args[1]
    return bool(weight.op == "get_attr" and weight.meta["val"].numel() >= LEAST_WEIGHTS)

"""Core ML packages (.mlpackage): ML programs with a real image input and class labels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.errors import InvalidSpec
from phoneward.export.backends import Lowered
from phoneward.export.backends.coreml_modules import METADATA, as_metadata, name_modules
from phoneward.export.backends.coreml_precision import Keep
from phoneward.export.quantize.coreml import with_int8_weights
from phoneward.names import Precision
from phoneward.spec import logits_in

if TYPE_CHECKING:
    from torch import Tensor, nn

    from phoneward.bundle import Stage
    from phoneward.export.backends import About, Graph
    from phoneward.export.recipe import Recipe
    from phoneward.spec import ImageSpec, TensorSpec

_PROBABILITIES = "probabilities"
_COLOR_LAYOUTS = {"RGB": "RGB", "GRAY": "GRAYSCALE"}
_COLORS = {"RGB": "RGB", "GRAY": "grey"}


class CoreMLBackend:
    """coremltools' converter from a torch.export program.

    Images are Core ML image inputs (RGB or grey, scale 1, no bias), so that a camera's pixel buffer
    can be fed as it is. A classifier has two outputs besides its own: `classLabel` and
    `classLabel_probs`, made of its logits, which Vision turns into observations. Neither exists in
    batches: Core ML makes those itself. int8 is of linear layers' weights and computes in half
    precision, as fp16 does: in single precision the Neural Engine would not run it.
    """

    suffix = ".mlpackage"
    precisions = (Precision.FP32, Precision.FP16, Precision.INT8)
    targets = ("iOS17", "iOS18")
    distributions = ("coremltools", "torch")

    def lower(self, graph: Graph, recipe: Recipe, out: Path) -> Lowered:
        """Write the package; a recipe without a target means the oldest one."""
        import coremltools as ct

        target = recipe.target or self.targets[0]
        if target not in self.targets:
            raise InvalidSpec(f"Core ML target '{target}'; known: {', '.join(self.targets)}")
        labels, stage = graph.about.labels, graph.stage
        _check_single(graph)
        half = recipe.precision is not Precision.FP32
        module, exported = exported_program(graph)
        modules = name_modules(exported, module)
        keep = Keep(recipe.keep_fp32, modules)
        settings = {
            "minimum_deployment_target": getattr(ct.target, target),
            "compute_precision": keep.precision(ct) if half else ct.precision.FLOAT32,
            "pass_pipeline": _passes(ct),
        }
        program = ct.convert(
            exported,
            convert_to="milinternal",
            inputs=[_input(ct, stage, i) for i in range(len(stage.inputs))],
            outputs=_outputs(ct, stage, classifier=labels is not None),
            **settings,
        )
        kept = keep.found() if half else {}
        # coremltools 9.0 pairs named outputs with the classifier's by position and fails; the
        # names are already in the program, so the second step must not see them
        program.functions["main"].output_types = None
        if recipe.precision is Precision.INT8:
            settings["pass_pipeline"] = with_int8_weights(_passes(ct))
        model = ct.convert(
            program,
            source="milinternal",
            convert_to="mlprogram",
            classifier_config=_classifier(ct, labels),
            skip_model_load=True,
            **settings,
        )
        _describe(model, graph.about, stage)
        model.user_defined_metadata[METADATA] = as_metadata(model._mil_program, modules)
        model.save(str(out))
        return Lowered(stage.inputs, stage.outputs, kept=kept)


def _passes(ct: Any) -> Any:
    """Return coremltools' own passes but the inexact one.

    It turns `x * scale + shift` into a batch normalisation of variance 1, whose default epsilon
    (1e-5) coremltools 9.0 does not make up for: a normalised image comes out 5e-6 too small.
    """
    passes = ct.PassPipeline.DEFAULT
    passes.remove_passes({"common::fuse_elementwise_to_batchnorm"})
    return passes


def exported_program(graph: Graph) -> tuple[nn.Module, Any]:
    """Return the module that is converted, a classifier's with probabilities, and its program."""
    module, labelled = graph.module, _labelled(graph)
    if labelled is not None:
        module = _with_probabilities(module, graph.stage.outputs.index(labelled))
    return module, _program(module, graph.stage)


def _labelled(graph: Graph) -> TensorSpec | None:
    return logits_in(graph.stage.outputs) if graph.about.labels else None


def _check_single(graph: Graph) -> None:
    alone = [spec for spec in graph.stage.inputs if _image(graph.stage, spec)]
    if (labelled := _labelled(graph)) is not None:
        alone.append(labelled)
    if any(spec.shape[0] > 1 for spec in alone):
        raise InvalidSpec(
            "Core ML makes its own batches from single images (MLArrayBatchProvider): "
            "export without --batch"
        )


def _program(module: nn.Module, stage: Stage) -> Any:
    import torch

    from phoneward.export.backends.trace import example_inputs

    with torch.no_grad():
        program = torch.export.export(module.eval(), example_inputs(stage), strict=False)
        return program.run_decompositions({torch.ops.aten.gelu.default: _gelu})


def _gelu(x: Tensor, approximate: str = "none") -> Any:
    """Spell the approximation by tanh out: coremltools 9.0 overlooks it, and makes a GELU exact.

    A pass of coremltools' puts the pieces together again, as a GELU by tanh.
    """
    if approximate != "tanh":
        return NotImplemented
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))
    return 0.5 * x * (1 + inner.tanh())


def _with_probabilities(body: nn.Module, logits: int) -> nn.Module:
    import torch

    class WithProbabilities(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
            answers = self.body(*tensors)
            row = (answers,) if isinstance(answers, torch.Tensor) else tuple(answers)
            return *row, row[logits].softmax(-1)

    return WithProbabilities()


def _input(ct: Any, stage: Stage, index: int) -> Any:
    spec = stage.inputs[index]
    image = _image(stage, spec)
    if image is not None:
        layout = getattr(ct.colorlayout, _COLOR_LAYOUTS[image.channel_order])
        return ct.ImageType(name=spec.name, shape=spec.shape, color_layout=layout)
    # without a type it would follow the precision of the program
    return ct.TensorType(name=spec.name, shape=spec.shape, dtype=np.dtype(spec.dtype).type)


def _image(stage: Stage, spec: TensorSpec) -> ImageSpec | None:
    return stage.image if stage.image is not None and stage.image.fits(spec) else None


def _outputs(ct: Any, stage: Stage, *, classifier: bool) -> list[Any]:
    names = [spec.name for spec in stage.outputs]
    names += [_PROBABILITIES] * classifier
    return [ct.TensorType(name=name, dtype=np.float32) for name in names]


def _classifier(ct: Any, labels: tuple[str, ...] | None) -> Any:
    if labels is None:
        return None
    return ct.ClassifierConfig(list(labels), predicted_probabilities_output=_PROBABILITIES)


def _describe(model: Any, about: About, stage: Stage) -> None:
    model.author = "Phoneward"
    model.short_description = about.description
    model.license = about.licence
    model.version = about.version
    for spec in stage.inputs:
        image = _image(stage, spec)
        color = "" if image is None else _COLORS[image.channel_order]
        kind = f"{spec.layout}, {color} 0 to 255" if color else spec.dtype
        model.input_description[spec.name] = f"{spec.shape} {kind}"
    for spec in stage.outputs:
        model.output_description[spec.name] = f"{spec.dtype} {spec.shape}"
    model.user_defined_metadata["phoneward.model"] = about.title


COREML = CoreMLBackend()

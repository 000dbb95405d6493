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
from phoneward.names import Precision

if TYPE_CHECKING:
    from torch import Tensor, nn

    from phoneward.bundle import Stage
    from phoneward.export.backends import About, Graph
    from phoneward.export.recipe import Recipe
    from phoneward.spec import TensorSpec

_PROBABILITIES = "probabilities"


class CoreMLBackend:
    """coremltools' converter from a torch.export program.

    Images are Core ML image inputs (RGB, scale 1, no bias), so that a camera's pixel buffer can
    be fed as it is. A classifier has two outputs besides its logits: `classLabel` and
    `classLabel_probs`, which Vision turns into observations.
    """

    suffix = ".mlpackage"
    precisions = (Precision.FP32, Precision.FP16)
    targets = ("iOS17", "iOS18")
    distributions = ("coremltools", "torch")

    def lower(self, graph: Graph, recipe: Recipe, out: Path) -> Lowered:
        """Write the package; a recipe without a target means the oldest one."""
        import coremltools as ct

        target = recipe.target or self.targets[0]
        if target not in self.targets:
            raise InvalidSpec(f"Core ML target '{target}'; known: {', '.join(self.targets)}")
        labels, stage = graph.about.labels, graph.stage
        half = recipe.precision is Precision.FP16
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
    module = _with_probabilities(graph.module) if graph.about.labels else graph.module
    return module, _program(module, graph.stage)


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


def _with_probabilities(body: nn.Module) -> nn.Module:
    import torch

    class WithProbabilities(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.body(image)
            return logits, logits.softmax(-1)

    return WithProbabilities()


def _input(ct: Any, stage: Stage, index: int) -> Any:
    spec = stage.inputs[index]
    if _is_image(stage, spec):
        return ct.ImageType(name=spec.name, shape=spec.shape, color_layout=ct.colorlayout.RGB)
    # without a type it would follow the precision of the program
    return ct.TensorType(name=spec.name, shape=spec.shape, dtype=np.dtype(spec.dtype).type)


def _is_image(stage: Stage, spec: TensorSpec) -> bool:
    return stage.image is not None and spec.layout == "NCHW"


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
        kind = f"{spec.layout}, RGB 0 to 255" if _is_image(stage, spec) else spec.dtype
        model.input_description[spec.name] = f"{spec.shape} {kind}"
    for spec in stage.outputs:
        model.output_description[spec.name] = f"{spec.dtype} {spec.shape}"
    model.user_defined_metadata["phoneward.model"] = about.title


COREML = CoreMLBackend()

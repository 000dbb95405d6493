"""The formats Phoneward writes; one file a backend, found by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from phoneward.bundle import Delegation, Stage
from phoneward.names import Precision
from phoneward.registry import Entry, Registry
from phoneward.spec import TensorSpec, logits_in

if TYPE_CHECKING:
    from torch import nn

    from phoneward.export.recipe import Recipe


@dataclass(frozen=True)
class Graph:
    """A stage ready for lowering.

    `module` is fp32, in eval mode, already rewritten; it takes the tensors of `stage.inputs` in
    order (NCHW) and returns those of `stage.outputs`. `about` goes into the file's metadata; a
    graph without logits (`logits_in`) is no classifier and has none of the model's labels.
    """

    module: nn.Module
    stage: Stage
    about: About

    def __post_init__(self) -> None:
        if logits_in(self.stage.outputs) is None:
            # backends see only what is true of this stage
            object.__setattr__(self, "about", replace(self.about, labels=None))


@dataclass(frozen=True)
class About:
    """What a file says of itself to whoever opens it without its bundle."""

    title: str
    description: str
    licence: str
    version: str
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Lowered:
    """What a backend wrote: the tensors as the file has them, and what left the fast path.

    `kept` has, by each name of the recipe's `keep_fp32`, the ops that it kept.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    delegation: Delegation | None = None
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Backend(Protocol):
    """Lowers a graph to a file of one format. Vendor packages are imported inside `lower`.

    `suffix` is the file's, `precisions` what the format can hold, `targets` the deployment
    targets it knows (empty: none), `distributions` the packages whose versions decide the bytes.
    """

    suffix: str
    precisions: tuple[Precision, ...]
    targets: tuple[str, ...]
    distributions: tuple[str, ...]

    def lower(self, graph: Graph, recipe: Recipe, out: Path) -> Lowered:
        """Write `out`; raises whatever the vendor raises, the pipeline translates it."""
        ...


BACKENDS: Registry[Backend] = Registry(
    "format",
    {
        "coreml": Entry("phoneward.export.backends.coreml:COREML", "coreml", ("coremltools",)),
        "executorch": Entry(
            "phoneward.export.backends.executorch:EXECUTORCH", "executorch", ("executorch",)
        ),
        "tflite": Entry("phoneward.export.backends.tflite:TFLITE", "tflite", ("litert_torch",)),
        "onnx": Entry("phoneward.export.backends.onnx:ONNX", "onnx", ("onnx", "onnxscript")),
    },
)

"""Models of torchvision and timm, converted plainly by coremltools, compute what PyTorch does.

None of Phoneward's rewrites or passes is involved: these are the packages that others write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import timm
import torch
import torchvision.models as tv
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from phoneward.runtime.engines.mil.program import Program
from tests.mil_packages import convert, quietly, trace

# of the range of PyTorch's answer
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
PRECISION = {"fp32": ct.precision.FLOAT32, "fp16": ct.precision.FLOAT16}


TRACED_HALF = {"fp16": "trace", "fp32": "export"}
TRACED_SINGLE = {"fp16": "export", "fp32": "trace"}
# coremltools 9 does not convert a traced reshape to sizes that depend on others with NumPy 2.4
EXPORTED = {"fp16": "export", "fp32": "export"}


@dataclass(frozen=True)
class Case:
    """A model, and its ways to packages: the precision of each and the route there."""

    make: Callable[[], nn.Module]
    size: int = 96
    routes: Mapping[str, str] = field(default_factory=lambda: dict(TRACED_HALF))
    target: Any = ct.target.iOS17


class Segmentation(nn.Module):
    """A small LR-ASPP, of which the map alone is the answer."""

    def __init__(self) -> None:
        super().__init__()
        layers = {"3": "low", "12": "high"}
        features = IntermediateLayerGetter(tv.mobilenet_v3_small().features, layers)
        self.model = tv.segmentation.LRASPP(features, 24, 576, num_classes=12)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)["out"]


def swin() -> nn.Module:
    return tv.SwinTransformer([4, 4], 48, [1, 2, 1], [2, 4, 8], [7, 7], num_classes=100)


def vit(name: str) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, img_size=96, depth=4)


# deep chains of random layers amplify the rounding of half precision in PyTorch as much: fp32 alone
CASES = {
    "resnet18": Case(tv.resnet18, target=ct.target.iOS15),
    "mobilenet_v3_small": Case(tv.mobilenet_v3_small, routes=TRACED_SINGLE),
    "efficientnet_b0": Case(tv.efficientnet_b0, routes={"fp32": "trace"}),
    "shufflenet_v2_x0_5": Case(tv.shufflenet_v2_x0_5, routes=EXPORTED),
    "squeezenet1_1": Case(tv.squeezenet1_1, target=ct.target.iOS16),
    "densenet121": Case(tv.densenet121, 64, {"fp32": "trace"}),
    "regnet_y_400mf": Case(tv.regnet_y_400mf, routes={"fp32": "export"}),
    "mnasnet0_5": Case(tv.mnasnet0_5, routes={"fp32": "export"}, target=ct.target.iOS18),
    "lraspp": Case(Segmentation, 64, {"fp16": "trace"}),
    "convnext_atto": Case(lambda: timm.create_model("convnext_atto"), 96, {"fp32": "export"}),
    "vit_tiny": Case(vit("vit_tiny_patch16_224"), 96, EXPORTED, ct.target.iOS18),
    "deit_tiny": Case(vit("deit_tiny_distilled_patch16_224"), 96, {"fp16": "export"}),
    "swin": Case(swin, 64, EXPORTED, ct.target.iOS18),
}
# these always run: every kind of network, each route in each precision; the others in the matrix
ALWAYS = {
    ("resnet18", "fp32"),
    ("mobilenet_v3_small", "fp16"),
    ("shufflenet_v2_x0_5", "fp16"),
    ("squeezenet1_1", "fp16"),
    ("squeezenet1_1", "fp32"),
    ("lraspp", "fp16"),
    ("convnext_atto", "fp32"),
    ("vit_tiny", "fp32"),
    ("deit_tiny", "fp16"),
    ("swin", "fp32"),
}
PACKAGES = [
    pytest.param(*one, marks=[] if one in ALWAYS else [pytest.mark.matrix])
    for one in ((name, precision) for name, case in CASES.items() for precision in case.routes)
]


def images(count: int, size: int) -> Tensor:
    """Random images with coarse and fine detail, (count, 3, size, size), 0 to 1."""
    coarse = nn.functional.interpolate(torch.rand(count, 3, 6, 6), size, mode="bilinear")
    return (coarse + torch.rand(count, 3, size, size)) / 2


def seeded(case: Case) -> nn.Module:
    """Random weights, with norms that have seen images.

    Statistics that do not belong to the weights would let the signal die on its way: then any
    answer would do.
    """
    torch.manual_seed(3)
    model = case.make().eval()
    norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.2, 0.6)
        nn.init.normal_(norm.bias, 0, 0.1)
        norm.train().momentum = None
    with torch.no_grad():
        model(images(16, case.size))
        for norm in norms:
            norm.eval().running_var.mul_(torch.rand_like(norm.running_var) * 0.5 + 0.75)
    return model


def package(model: nn.Module, x: Tensor, route: str, path: Path, **options: Any) -> Path:
    if route == "trace":
        kinds = [ct.TensorType(name="x", shape=x.shape)]
        converted = convert(trace(model, x.numpy()), inputs=kinds, **options)
    else:
        exported = quietly(lambda: torch.export.export(model, (x,)).run_decompositions({}))
        converted = convert(exported, **options)
    converted.save(str(path))
    return path


def difference(got: NDArray[Any], wanted: NDArray[Any]) -> float:
    return float(np.abs(got - wanted).max() / np.ptp(wanted))


@pytest.mark.parametrize(("name", "precision"), PACKAGES)
def test_it_answers_as_pytorch(name: str, precision: str, tmp_path: Path) -> None:
    case = CASES[name]
    model = seeded(case)
    inputs = images(2, case.size).split(1)
    path = package(
        model,
        inputs[0],
        case.routes[precision],
        tmp_path / f"{name}.mlpackage",
        minimum_deployment_target=case.target,
        compute_precision=PRECISION[precision],
    )
    program = Program.load(path)
    wanted, worst = [], 0.0
    for image in inputs:
        (answer,) = program({"x": image.numpy()}).values()
        with torch.no_grad():
            wanted.append(model(image).numpy())
        worst = max(worst, difference(answer, wanted[-1]))
        assert (answer.argmax(1) == wanted[-1].argmax(1)).mean() > 0.98
    assert worst <= TOLERANCE[precision]
    # an answer that hardly depends on the image would prove nothing
    assert difference(*wanted) > max(0.01, 10 * worst)

"""What Phoneward's Core ML backend does where coremltools alone would change the numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from phoneward.bundle import Stage
from phoneward.export.backends import BACKENDS, About, Graph
from phoneward.export.recipe import Recipe
from phoneward.quiet import noise_to
from phoneward.runtime.engines.mil.program import Program
from phoneward.spec import TensorSpec

ROW = TensorSpec(name="row", shape=(1, 64))
STAGE = Stage(name="row", inputs=(ROW,), outputs=(TensorSpec(name="out", shape=(1, 64)),))


def lowered(module: nn.Module, folder: Path) -> Program:
    with noise_to(folder / "log"):
        graph = Graph(module.eval(), STAGE, About("row", "", "", "0"))
        BACKENDS.get("coreml").lower(graph, Recipe("coreml"), folder / "row.mlpackage")
    return Program.load(folder / "row.mlpackage")


def test_a_gelu_keeps_its_approximation(tmp_path: Path) -> None:
    row = torch.linspace(-4, 4, 64)[None]
    exact, tanh = nn.GELU(), nn.GELU(approximate="tanh")
    assert (exact(row) - tanh(row)).abs().max() > 1e-4
    for name, module in (("exact", exact), ("tanh", tanh)):
        (tmp_path / name).mkdir()
        program = lowered(module, tmp_path / name)
        answer = program({"row": row.numpy()})["out"]
        np.testing.assert_allclose(answer, module(row).numpy(), atol=1e-6)


def test_a_scale_and_a_shift_stay_exact(tmp_path: Path) -> None:
    class Normalise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(1, 64) + 0.5, requires_grad=False)
            self.shift = nn.Parameter(torch.rand(1, 64), requires_grad=False)

        def forward(self, row: torch.Tensor) -> torch.Tensor:
            return row * self.scale + self.shift

    torch.manual_seed(0)
    module, row = Normalise(), torch.linspace(0, 255, 64)[None]
    answer = lowered(module, tmp_path)({"row": row.numpy()})["out"]
    # coremltools' own passes make it smaller by 5e-6 of itself
    np.testing.assert_allclose(answer, module(row).numpy(), rtol=5e-7)

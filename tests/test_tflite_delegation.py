"""What XNNPACK leaves behind in a TFLite model is named and counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from phoneward.bundle import Delegation
from phoneward.export.backends.tflite_delegation import delegation_of


class Apply(torch.nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def looked_at(function: Callable[[torch.Tensor], torch.Tensor], folder: Path) -> Delegation:
    import litert_torch

    litert_torch.convert(Apply(function).eval(), (torch.rand(1, 8, 4),)).export(
        str(folder / "m.tflite")
    )
    return delegation_of(folder / "m.tflite")


def test_a_graph_that_xnnpack_takes_whole_has_no_fallback(tmp_path: Path) -> None:
    seen = looked_at(lambda x: torch.tanh(x * 2 + 1).sigmoid(), tmp_path)
    assert (seen.partitions, seen.fallback) == (1, {})
    assert seen.delegated_ops >= 4


@pytest.mark.parametrize(
    ("function", "op"),
    [(lambda x: torch.cumsum(x * 2, 1) + 1, "CUMSUM"), (lambda x: (x * 2).sign() + 1, "SIGN")],
)
def test_a_refused_op_is_named_and_splits_the_graph(function, op: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    seen = looked_at(function, tmp_path)
    assert seen.fallback == {op: 1}
    assert seen.partitions == 2
    assert seen.delegated_ops == 2

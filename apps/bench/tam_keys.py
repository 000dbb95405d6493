"""What could a host save that keeps the memory's keys, once projected, instead of the memory?

Two graphs of the first cross-attention: with the keys projected from the bank, as in `propagate`,
and with all keys given. The second is more than any cache can do, for the age of a frame is in
its keys too.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from phoneward.apps.bench.tam_records import ATTENDS
from phoneward.bundle import Stage
from phoneward.export.models.efficienttam.variants import CHANNELS
from phoneward.export.rewrites.tam_memory import FoldedReader, apply
from phoneward.spec import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

PROJECTED, GIVEN = ATTENDS


class Attend(nn.Module):  # type: ignore[misc]
    """Queries from tokens (1, T, 256), keys given (1, 257, N) or from the bank (1, 66, N)."""

    def __init__(self, reader: FoldedReader, *, given: bool) -> None:
        super().__init__()
        self.cross, self.given = reader.layers[0].cross_attention, given
        self.register_buffer("query_cosines", reader.query_cosines)
        self.register_buffer("query_sines", reader.query_sines)
        if not given:
            self.register_buffer("cosines", reader.bank.cosines)
            self.register_buffer("sines", reader.bank.sines)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend with values (1, N, 64)."""
        if not self.given:
            keys = self.cross.key(keys, self.cosines, self.sines)
        q = self.cross.query(x, self.query_cosines, self.query_sines)
        return cast(Tensor, self.cross(q, keys, values))


def graphs(propagate: nn.Module) -> dict[str, tuple[nn.Module, Stage]]:
    """The two modules with their specs, from the exact model's plain `propagate`."""
    reader = _reader(propagate)
    tokens, width, length = reader.variant.tokens, CHANNELS + 1, reader.bank.cosines.shape[2]
    found: dict[str, tuple[nn.Module, Stage]] = {}
    for name, rows in ((PROJECTED, reader.bank.places.shape[1] + 2), (GIVEN, width)):
        inputs = (
            TensorSpec(name="x", shape=(1, tokens, CHANNELS)),
            TensorSpec(name="keys", shape=(1, rows, length)),
            TensorSpec(name="values", shape=(1, length, reader.bank.places.shape[1])),
        )
        outputs = (TensorSpec(name="attended", shape=(1, tokens, CHANNELS)),)
        module = Attend(reader, given=name == GIVEN).eval()
        found[name] = module, Stage(name=name, inputs=inputs, outputs=outputs)
    return found


def tensors(
    propagate: nn.Module, given: Mapping[str, NDArray[np.float32]]
) -> tuple[dict[str, dict[str, NDArray[np.float32]]], dict[str, dict[str, NDArray[np.float32]]]]:
    """Inputs and answers of both graphs, from the inputs of `propagate`."""
    reader = _reader(propagate)
    names = ("memory", "memory_age", "pointers", "pointer_valid")
    with torch.no_grad():
        bank, values, pointed, _ = reader.bank(*(torch.from_numpy(given[n]) for n in names))
        width = values.shape[1]
        rows = torch.cat((values, pointed[:, :width]), dim=2).transpose(1, 2).contiguous()
        x = torch.from_numpy(given["features"])
        keys = reader.layers[0].cross_attention.key(bank, reader.bank.cosines, reader.bank.sines)
        inputs, answers = {}, {}
        for name, (module, _) in graphs(propagate).items():
            row = {"x": x, "keys": keys if name == GIVEN else bank, "values": rows}
            inputs[name] = {key: tensor.numpy() for key, tensor in row.items()}
            answers[name] = {"attended": module(*row.values()).numpy()}
    return inputs, answers


def _reader(propagate: nn.Module) -> FoldedReader:
    rewritten = copy.deepcopy(propagate)
    apply(rewritten)
    return cast(FoldedReader, rewritten.reader)

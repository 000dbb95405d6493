"""Recurrent layers.

Where the formulas in coremltools' docstrings part from its tests, which ran on Apple's own
machines, the tests are followed: a reverse layer returns its states in the order in which it
computed them (only the backward half of a bidirectional one is turned round), a GRU resets the
state before the product unless `reset_after`, `scaled_tanh` is `tanh`, and `clip` is the cell's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from phoneward.runtime.engines.mil.numerics import Sums, rounded
from phoneward.runtime.engines.mil.signature import Table

TABLE = Table()

Activation = Callable[[Tensor], Tensor]

_ACTIVATIONS: dict[str, Activation] = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "sigmoid_hard": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "tanh": torch.tanh,
    "scaled_tanh": torch.tanh,
}


@dataclass(frozen=True)
class _Weights:
    """Of one direction; products as `sums` adds them up."""

    sums: Sums
    inputs: Tensor
    hidden: Tensor
    bias: Tensor | None = None
    peephole: Tensor | None = None

    def of_inputs(self, x: Tensor) -> Tensor:
        """The part of the gates that comes from the inputs, of all steps at once."""
        product = self.sums.matmul(x, self.inputs.T)
        return product if self.bias is None else product + self.bias

    def of_state(self, h: Tensor) -> Tensor:
        return self.sums.matmul(h, self.hidden.T)

    def kept(self, state: Tensor) -> Tensor:
        """A state as it goes to the next step."""
        return state if self.sums.exact else rounded(state)


@TABLE.op
def rnn(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
    *,
    sums: Sums,
) -> tuple[Tensor, Tensor]:
    weights = _Weights(sums, weight_ih, weight_hh, bias)
    activate = _activation(activation)
    h, states = initial_h, []
    for given in weights.of_inputs(_ordered(x, direction)):
        h = weights.kept(activate(given + weights.of_state(h)))
        states.append(h)
    return _answer(states, output_sequence), h


@TABLE.op
def gru(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: bool = False,
    input_bias: Tensor | None = None,
    *,
    sums: Sums,
) -> tuple[Tensor, Tensor]:
    gate, activate = _activation(recurrent_activation), _activation(activation)
    size = initial_h.shape[-1]
    weights = _Weights(sums, weight_ih, weight_hh, input_bias)
    own = torch.zeros(3 * size) if bias is None else bias
    # reset, new and update, in this order
    both, new = own[[*range(size), *range(2 * size, 3 * size)]], own[size : 2 * size]
    rows = weight_hh.split(size)
    h, states = initial_h, []
    for given in weights.of_inputs(_ordered(x, direction)):
        g_reset, g_new, g_update = given.split(size, -1)
        reset = gate(g_reset + sums.matmul(h, rows[0].T) + both[:size])
        update = gate(g_update + sums.matmul(h, rows[2].T) + both[size:])
        if reset_after:
            proposal = g_new + reset * (sums.matmul(h, rows[1].T) + new)
        else:
            proposal = g_new + sums.matmul(weights.kept(reset * h), rows[1].T) + new
        h = weights.kept((1 - update) * activate(proposal) + update * h)
        states.append(h)
    return _answer(states, output_sequence), h


@dataclass(frozen=True)
class _Cell:
    """What the two directions of an LSTM share."""

    gate: Activation
    cell: Activation
    out: Activation
    clip: float | None

    def run(
        self, weights: _Weights, x: Tensor, h: Tensor, c: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """States of all steps, and the last memory."""
        size = h.shape[-1]
        holes = torch.zeros(3 * size) if weights.peephole is None else weights.peephole
        to_input, to_forget, to_output = holes.split(size)
        states = []
        for given in weights.of_inputs(x):
            # input, forget and output gate, then the cell, in this order
            i, f, o, z = (given + weights.of_state(h)).split(size, -1)
            kept = self.gate(f + to_forget * c) * c
            c = kept + self.gate(i + to_input * c) * self.cell(z)
            c = weights.kept(c if self.clip is None else c.clamp(-self.clip, self.clip))
            h = weights.kept(self.gate(o + to_output * c) * self.out(c))
            states.append(h)
        return states, c


@TABLE.op
def lstm(
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    weight_ih_back: Tensor | None = None,
    weight_hh_back: Tensor | None = None,
    bias_back: Tensor | None = None,
    peephole_back: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: float | None = None,
    *,
    sums: Sums,
) -> tuple[Tensor, Tensor, Tensor]:
    gate, inner, out = map(_activation, (recurrent_activation, cell_activation, activation))
    cell = _Cell(gate, inner, out, clip)
    weights = _Weights(sums, weight_ih, weight_hh, bias, peephole)
    if direction != "bidirectional":
        states, c = cell.run(weights, _ordered(x, direction), initial_h, initial_c)
        return _answer(states, output_sequence), states[-1], c
    if weight_ih_back is None or weight_hh_back is None:
        raise ValueError("a bidirectional layer without weights of its backward direction")
    back = _Weights(sums, weight_ih_back, weight_hh_back, bias_back, peephole_back)
    (h_ahead, h_back), (c_ahead, c_back) = initial_h.chunk(2, -1), initial_c.chunk(2, -1)
    ahead, c_ahead = cell.run(weights, x, h_ahead, c_ahead)
    behind, c_back = cell.run(back, x.flip(0), h_back, c_back)
    h = torch.cat([ahead[-1], behind[-1]], -1)
    # each direction's last state, or all of them at the step of their input
    pairs = zip(ahead, reversed(behind), strict=True)
    sequence = torch.stack([torch.cat(pair, -1) for pair in pairs]) if output_sequence else h[None]
    return sequence, h, torch.cat([c_ahead, c_back], -1)


def _activation(name: str) -> Activation:
    known = _ACTIVATIONS.get(name.lower())
    if known is None:
        raise ValueError(f"no activation '{name}'")
    return known


def _ordered(x: Tensor, direction: str) -> Tensor:
    if direction not in ("forward", "reverse"):
        raise ValueError(f"no direction '{direction}'")
    return x if direction == "forward" else x.flip(0)


def _answer(states: list[Tensor], sequence: bool) -> Tensor:
    return torch.stack(states) if sequence else states[-1][None]
